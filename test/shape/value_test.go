package shape_test

import (
	"net/netip"
	"reflect"
	"strings"
	"testing"

	"github.com/loden-net/loden/network"
	"github.com/loden-net/loden/subnet"
)

// TestNoPointerIsReachableFromPlannedValues walks the types that a node's state is computed
// from and into. A pointer there could be nil, and could be changed behind a comparison.
func TestNoPointerIsReachableFromPlannedValues(t *testing.T) {
	for _, v := range []any{network.State{}, subnet.Lease{}} {
		typ := reflect.TypeOf(v)
		for _, path := range pointers(typ, typ.String(), map[reflect.Type]bool{}) {
			t.Error(path)
		}
	}
}

// TestWalkFindsPointers keeps the walk from approving everything.
func TestWalkFindsPointers(t *testing.T) {
	type inner struct{ List []map[string]int }
	for name, v := range map[string]any{
		"pointer":   struct{ P *int }{},
		"map":       inner{},
		"interface": struct{ A [2]any }{},
		"function":  struct{ F func() }{},
	} {
		if len(pointers(reflect.TypeOf(v), "T", map[reflect.Type]bool{})) == 0 {
			t.Errorf("%s not found", name)
		}
	}
}

// pointers returns the paths from a type to everything in it that refers to something else.
// Slices may be there: nobody changes one in place. An address of netip is a value to
// everybody, whatever it is inside. So is a sorted.List, which shows its items as values and
// never changes them.
func pointers(t reflect.Type, path string, seen map[reflect.Type]bool) []string {
	if seen[t] || t == reflect.TypeOf(netip.Addr{}) {
		return nil
	}
	seen[t] = true
	if strings.HasSuffix(t.PkgPath(), "/config/sorted") {
		chunks, _ := t.FieldByName("chunks")
		return pointers(chunks.Type.Elem().Elem().Elem(), path+".item", seen)
	}
	switch t.Kind() {
	case reflect.Pointer, reflect.Map, reflect.Interface, reflect.Func, reflect.Chan, reflect.UnsafePointer:
		return []string{path + " is a " + t.Kind().String()}
	case reflect.Slice, reflect.Array:
		return pointers(t.Elem(), path+"[]", seen)
	case reflect.Struct:
		var out []string
		for i := range t.NumField() {
			f := t.Field(i)
			out = append(out, pointers(f.Type, path+"."+f.Name, seen)...)
		}
		return out
	}
	return nil
}
