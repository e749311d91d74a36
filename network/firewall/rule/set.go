package rule

import (
	"encoding/json"
	"fmt"
	"iter"
	"net/netip"
	"slices"
	"strings"

	"github.com/loden-net/loden/config/opt"
)

// Prefixes is a set of prefixes of both families. It is comparable with ==; the zero
// value is empty.
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

// MarshalJSON writes a list of strings.
func (s Prefixes) MarshalJSON() ([]byte, error) { return json.Marshal(strings.Fields(s.text)) }

// IsZero reports whether the set is empty, so that "omitzero" leaves it out of JSON.
func (s Prefixes) IsZero() bool { return s.text == "" }

// Names is a set of interface names. It is comparable with ==; the zero value is empty.
type Names struct{ text string } // sorted, distinct, joined by "/", which no name holds

// NewNames returns the set of names; empty ones are left out.
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

// String returns the names joined by spaces.
func (s Names) String() string { return strings.ReplaceAll(s.text, "/", " ") }

// MarshalJSON writes a list of strings.
func (s Names) MarshalJSON() ([]byte, error) { return json.Marshal(slices.Collect(s.All())) }

// IsZero reports whether the set is empty, so that "omitzero" leaves it out of JSON.
func (s Names) IsZero() bool { return s.text == "" }

// ParseScope reads what Scope.String wrote. Anything else is no scope: what the kernel
// holds may have been written by anybody.
func ParseScope(text string) opt.Option[Scope] {
	words := strings.Fields(text)
	if len(words) != 2 {
		return opt.None[Scope]()
	}
	network, err1 := netip.ParsePrefix(words[0])
	subnet, err2 := netip.ParsePrefix(words[1])
	s := Scope{Network: network, Subnet: subnet}
	if err1 != nil || err2 != nil || !s.Valid() {
		return opt.None[Scope]()
	}
	return opt.Some(s)
}

// title names what a list does in the comment of the jump to it.
func (p Place) title() string { return "loden " + p.String() }

// Title returns the comment of the jump to a list: it holds the scope, so that the next
// start can read from the kernel what the last one wished.
func (l List) Title() string { return fmt.Sprintf("%s %s", l.Place.title(), l.Scope) }

// ParseTitle reads the scope from a comment that Title wrote for the place.
func ParseTitle(p Place, comment string) opt.Option[Scope] {
	rest, ok := strings.CutPrefix(comment, p.title()+" ")
	if !ok {
		return opt.None[Scope]()
	}
	return ParseScope(rest)
}
