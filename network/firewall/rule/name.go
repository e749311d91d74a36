package rule

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
)

// Sum returns ten hexadecimal digits that stand for the list's rules: the same rules give
// the same digits on every node and in every version that means the same by them.
func (l List) Sum() string {
	h := sha256.New()
	fmt.Fprintf(h, "%v %v\n", l.Place, l.Scope)
	for _, c := range l.Chains {
		fmt.Fprintf(h, "%q\n", c.Name)
		for _, r := range c.Rules {
			fmt.Fprintf(h, "%+v\n", r)
		}
	}
	return hex.EncodeToString(h.Sum(nil)[:5])
}

// Named returns the chains with the names they have in the kernel, prefix and sum in
// them, and Goto targets renamed alike. Chains that go nowhere else come first, so that
// every target exists before a rule names it.
func (l List) Named(prefix string) []Chain {
	sum := l.Sum()
	named := func(name string) string {
		if name == "" {
			return prefix + sum
		}
		return prefix + sum + "-" + name
	}
	out := make([]Chain, 0, len(l.Chains))
	for _, c := range l.Chains {
		n := Chain{Name: named(c.Name), Rules: slices.Clone(c.Rules)}
		for i, r := range n.Rules {
			if r.Verdict == Goto {
				n.Rules[i].Chain = named(r.Chain)
			}
		}
		out = append(out, n)
	}
	slices.Reverse(out)
	return out
}

// refused starts the comment of every rule that refuses packets, so that its counter can
// be found without knowing the configuration it was made from.
const refused = "loden refused: "

// Refuses reports whether a rule with this comment counts refused packets.
func Refuses(comment string) bool { return strings.HasPrefix(comment, refused) }
