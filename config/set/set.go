// Package set owns sets of prefixes, of ports and of interface names that are comparable with ==, so that the
// values which nodes are computed from can hold them. It knows nothing of the meaning of its members.
package set

import (
	"iter"
	"net/netip"
	"slices"
	"strings"

	"github.com/loden-net/loden/config/opt"
)

// Prefixes is a set of prefixes of both families. It is comparable with ==; the zero value is empty.
type Prefixes struct{ text string } // masked, sorted, distinct, joined by spaces

// NewPrefixes returns the set of the valid prefixes among ps, masked.
func NewPrefixes(ps ...netip.Prefix) Prefixes {
	var words []string
	for _, p := range ps {
		if p.IsValid() {
			words = append(words, p.Masked().String())
		}
	}
	slices.Sort(words)
	return Prefixes{text: strings.Join(slices.Compact(words), " ")}
}

// Of yields the prefixes of one family in a fixed order.
func (s Prefixes) Of(f opt.Family) iter.Seq[netip.Prefix] {
	return func(yield func(netip.Prefix) bool) {
		for word := range strings.FieldsSeq(s.text) {
			p := netip.MustParsePrefix(word) // written by NewPrefixes
			if opt.FamilyOf(p.Addr()) == f && !yield(p) {
				return
			}
		}
	}
}

// String returns the prefixes joined by spaces.
func (s Prefixes) String() string { return s.text }

// IsZero reports whether the set is empty.
func (s Prefixes) IsZero() bool { return s.text == "" }

// Names is a set of interface names. It is comparable with ==; the zero value is empty.
type Names struct{ text string } // sorted, distinct, joined by "/", a character that no interface name has

// NewNames returns the set of names. It leaves out empty names and names with a slash.
func NewNames(names ...string) Names {
	sorted := slices.DeleteFunc(slices.Clone(names), func(n string) bool { return n == "" || strings.Contains(n, "/") })
	slices.Sort(sorted)
	return Names{text: strings.Join(slices.Compact(sorted), "/")}
}

// All yields the names in a fixed order.
func (s Names) All() iter.Seq[string] {
	return func(yield func(string) bool) {
		if s.text == "" {
			return
		}
		strings.SplitSeq(s.text, "/")(yield)
	}
}

// Has reports whether the set holds a name.
func (s Names) Has(name string) bool {
	for n := range s.All() {
		if n == name {
			return true
		}
	}
	return false
}

// String returns the names joined by spaces.
func (s Names) String() string { return strings.ReplaceAll(s.text, "/", " ") }

// IsZero reports whether the set is empty.
func (s Names) IsZero() bool { return s.text == "" }
