package firewall_test

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/loden-net/loden/config/opt"
	"github.com/loden-net/loden/network/firewall"
)

// A prefix is absent, the first or the second prefix, before and now.
const (
	none = iota
	one
	another
)

// choice returns no prefix, a, or b.
func choice(i int, a, b string) opt.Option[netip.Prefix] {
	switch i {
	case one:
		return opt.Some(netip.MustParsePrefix(a))
	case another:
		return opt.Some(netip.MustParsePrefix(b))
	}
	return opt.None[netip.Prefix]()
}

// scopeFor builds the scope of a network and a subnet, each of three values. Both networks hold
// both subnets.
func scopeFor(f opt.Family, network, subnet int) opt.Option[firewall.Scope] {
	if f == opt.V6 {
		return scopeOf(choice(network, "fd44::/48", "fd44::/44"), choice(subnet, "fd44:0:0:1::/64", "fd44:0:0:2::/64"))
	}
	return scopeOf(choice(network, "10.244.0.0/16", "10.240.0.0/12"), choice(subnet, "10.244.1.0/24", "10.244.2.0/24"))
}

// scopeOf returns a scope where both prefixes are known, and none otherwise.
func scopeOf(network, subnet opt.Option[netip.Prefix]) opt.Option[firewall.Scope] {
	n, okN := network.Get()
	s, okS := subnet.Get()
	if !okN || !okS {
		return opt.None[firewall.Scope]()
	}
	return opt.Some(firewall.Scope{Network: n.Masked(), Subnet: s.Masked()})
}

// masquerade is a configuration of a family, or an empty configuration.
func masquerade(f opt.Family, scope opt.Option[firewall.Scope]) firewall.Config {
	var scopes opt.Dual[firewall.Scope]
	if s, ok := scope.Get(); ok {
		scopes = scopes.With(f, s)
	}
	return firewall.Policy{Masq: true, Forward: true}.Config("loden0", scopes)
}

// expected is the table of docs/firewall.md: the change of the masquerade between two scopes.
func expected(previous, current opt.Option[firewall.Scope]) string {
	p, hadOne := previous.Get()
	c, hasOne := current.Get()
	switch {
	case !hadOne && !hasOne:
		return ""
	case !hadOne:
		return "add"
	case !hasOne:
		return "delete"
	case p == c:
		return ""
	}
	return "replace"
}

// TestTruthTableOfPreviousAndCurrentScope goes through previous and current × network and
// subnet × {absent, first, second} × family: 3⁴ × 2 transitions, on the real kernel. The other
// family is masqueraded all the time and must not be touched.
func TestTruthTableOfPreviousAndCurrentScope(t *testing.T) {
	onEachAtOnce(t, func(t *testing.T, b bed) {
		f := b.open(t)
		cases := 0
		for _, family := range opt.Families() {
			other := opt.V6 - family
			bystander := masquerade(other, scopeFor(other, one, one))
			for n := range 81 {
				pn, ps, cn, cs := n/27, n/9%3, n/3%3, n%3
				previous, current := scopeFor(family, pn, ps), scopeFor(family, cn, cs)
				apply(t, f, with(bystander, masquerade(family, previous)))
				untouched := b.holds(t, other)
				changes := apply(t, f, with(bystander, masquerade(family, current)))
				got := ""
				if len(changes) > 0 {
					got = changes[0].Verb
				}
				name := fmt.Sprintf("%s: %v to %v", family, previous, current)
				if want := expected(previous, current); got != want || len(changes) > 1 {
					t.Errorf("%s: did %v, want %q", name, changes, want)
				}
				if p, ok := previous.Get(); ok && got == "replace" && !strings.HasSuffix(changes[0].Object, fmt.Sprintf(", was %s in %s", p.Subnet, p.Network)) {
					t.Errorf("%s: %v does not name the previous scope", name, changes[0])
				}
				checkMasquerade(t, b, family, current, name)
				if now := b.holds(t, other); now != untouched {
					t.Errorf("%s touched %s:\n%s\nbefore:\n%s", name, other, now, untouched)
				}
				cases++
			}
		}
		if cases != 162 {
			t.Errorf("%d cases", cases)
		}
	})
}

// with returns a configuration with both families' masquerade.
func with(a, b firewall.Config) firewall.Config {
	for f, m := range b.Masq.All() {
		a.Masq = a.Masq.With(f, m)
	}
	for f, s := range b.Forward.All() {
		a.Forward = a.Forward.With(f, s)
	}
	return a
}

// checkMasquerade looks at the rules with the back-end's own tool: those of the scope are
// there, and no further rules of Loden.
func checkMasquerade(t *testing.T, b bed, f opt.Family, scope opt.Option[firewall.Scope], name string) {
	t.Helper()
	rules := b.holds(t, f)
	s, ok := scope.Get()
	if !ok {
		if strings.Contains(rules, "LODEN") || strings.Contains(rules, "loden") {
			t.Errorf("%s: rules without a scope:\n%s", name, rules)
		}
		return
	}
	for _, p := range []string{"10.244.0.0/16", "10.240.0.0/12", "10.244.1.0/24", "10.244.2.0/24", "fd44::/48", "fd44::/44", "fd44:0:0:1::/64", "fd44:0:0:2::/64"} {
		prefix := netip.MustParsePrefix(p)
		want := prefix == s.Network || prefix == s.Subnet
		if strings.Contains(rules, p) != want {
			t.Errorf("%s: rules for %s: want %v:\n%s", name, p, want, rules)
		}
	}
}
