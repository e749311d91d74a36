package rule_test

import (
	"net/netip"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/loden-net/loden/config/opt"
	"github.com/loden-net/loden/config/set"
	"github.com/loden-net/loden/network/firewall/rule"
)

// must is a compile-time check: types that are compared with == stay comparable.
func must[T comparable]() {}

var _ = []func(){must[rule.Scope], must[rule.Masquerading], must[rule.Guarding], must[rule.Rule]}

// packet holds the fields that rules match.
type packet struct {
	in, out    string
	src, dst   netip.Addr
	mark       uint32
	translated bool
}

// judge is the kernel's way through a list, written down: the first rule that matches and
// decides ends it; a list that ends returns.
func judge(t *rapid.T, l rule.List, p packet) rule.Verdict {
	chain := l.Chains[0]
	for i := 0; i < len(chain.Rules); i++ {
		r := chain.Rules[i]
		if !matches(r, p) {
			continue
		}
		if r.Verdict != rule.Goto {
			return r.Verdict
		}
		next := slices.IndexFunc(l.Chains, func(c rule.Chain) bool { return c.Name == r.Chain })
		if next < 0 {
			t.Fatalf("no chain %q", r.Chain)
		}
		chain, i = l.Chains[next], -1
	}
	return rule.Return
}

func matches(r rule.Rule, p packet) bool {
	inside := func(n rule.Net, a netip.Addr) bool {
		return !n.Prefix.IsValid() || n.Prefix.Contains(a) != n.Not
	}
	return (r.InIface == "" || r.InIface == p.in) && (r.OutIface == "" || r.OutIface == p.out) &&
		inside(r.Src, p.src) && inside(r.Dst, p.dst) &&
		(r.Mark == rule.Mark{} || p.mark&r.Mark.Mask == r.Mark.Value) && (!r.Translated || p.translated)
}

// corner draws an address near the edges of the prefixes in the rules.
func corner(t *rapid.T, f opt.Family, name string) netip.Addr {
	v4 := []string{"10.244.1.2", "10.244.1.255", "10.244.2.0", "10.244.0.0", "10.245.0.0", "10.243.255.255", "10.244.80.9", "192.0.2.9", "198.51.100.7", "224.0.0.251", "255.255.255.255", "0.0.0.0"}
	v6 := []string{"fd44:0:0:1::2", "fd44:0:0:2::", "fd44::", "fd44:0:1::", "fd44:0:0:80::9", "2001:db8::9", "2001:db8:7::1", "ff02::1", "fe80::1", "::"}
	if f == opt.V6 {
		return netip.MustParseAddr(rapid.SampledFrom(v6).Draw(t, name))
	}
	return netip.MustParseAddr(rapid.SampledFrom(v4).Draw(t, name))
}

// setting draws a guard whose scope, exceptions and exclusions are around the corners.
func setting(t *rapid.T, f opt.Family) rule.Guarding {
	g := rule.Guarding{
		Scope:   rule.Scope{Network: netip.MustParsePrefix("10.244.0.0/16"), Subnet: netip.MustParsePrefix("10.244.1.0/24")},
		Tunnel:  "loden0",
		Routed:  rapid.Bool().Draw(t, "routed"),
		Enforce: rapid.Bool().Draw(t, "enforce"),
	}
	if f == opt.V6 {
		g.Scope = rule.Scope{Network: netip.MustParsePrefix("fd44::/48"), Subnet: netip.MustParsePrefix("fd44:0:0:1::/64")}
	}
	if rapid.Bool().Draw(t, "uplinks known") {
		g.Uplinks = set.NewNames("eth0", "eth1")
	}
	if rapid.Bool().Draw(t, "underlay inside") {
		g.Except = set.NewPrefixes(netip.MustParsePrefix("10.244.80.0/24"), netip.MustParsePrefix("fd44:0:0:80::/64"))
	}
	if rapid.Bool().Draw(t, "exclusions") {
		g.Exclude = set.NewPrefixes(netip.MustParsePrefix("198.51.100.0/24"), netip.MustParsePrefix("2001:db8:7::/48"))
	}
	return g
}

// kind is a kind of addresses of docs/firewall.md.
type kind int

const (
	outside kind = iota
	ours
	theirs
)

func kindOf(g rule.Guarding, a netip.Addr) kind {
	switch {
	case !g.Scope.Network.Contains(a) || within(g.Except, a):
		return outside
	case g.Scope.Subnet.Contains(a):
		return ours
	}
	return theirs
}

func within(s set.Prefixes, a netip.Addr) bool {
	for p := range s.Of(opt.FamilyOf(a)) {
		if p.Contains(a) {
			return true
		}
	}
	return false
}

// mayArrive and mayLeave are the purpose of the guard, as slowly and plainly as possible.
func mayArrive(g rule.Guarding, p packet) bool {
	src, dst := kindOf(g, p.src), kindOf(g, p.dst)
	switch {
	case p.in == g.Tunnel || p.in == "lo":
		return true
	case src == ours:
		return !uplink(g, p.in)
	case src == outside && dst == outside:
		return true
	case g.Routed:
		return src == outside || dst == outside
	case src == theirs:
		return within(g.Exclude, p.dst)
	}
	// From outside to a pod of a masqueraded network.
	return within(g.Exclude, p.src) || linkLocal(p.src) && !uplink(g, p.in)
}

func mayLeave(g rule.Guarding, p packet) bool {
	src, dst := kindOf(g, p.src), kindOf(g, p.dst)
	switch {
	case p.out == g.Tunnel || p.out == "lo":
		return true
	case dst == ours:
		return !uplink(g, p.out)
	case dst == theirs:
		return false
	case src == outside || g.Routed || within(g.Exclude, p.dst):
		return true
	case p.dst.IsMulticast() || linkLocal(p.dst) || p.dst == netip.AddrFrom4([4]byte{255, 255, 255, 255}):
		return !uplink(g, p.out)
	}
	return p.translated
}

func uplink(g rule.Guarding, name string) bool {
	return slices.Contains(slices.Collect(g.Uplinks.All()), name)
}

func linkLocal(a netip.Addr) bool { return a.Is6() && a.IsLinkLocalUnicast() }

func TestGuardRefusesExactlyWhatItShould(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		f := rapid.SampledFrom([]opt.Family{opt.V4, opt.V6}).Draw(t, "family")
		g := setting(t, f)
		names := []string{"loden0", "lo", "eth0", "eth1", "cni0", "veth7"}
		p := packet{
			in: rapid.SampledFrom(names).Draw(t, "in"), out: rapid.SampledFrom(names).Draw(t, "out"),
			src: corner(t, f, "src"), dst: corner(t, f, "dst"), translated: rapid.Bool().Draw(t, "translated"),
		}
		refusal := rule.Warn
		if g.Enforce {
			refusal = rule.Drop
		}
		for i, may := range []bool{mayArrive(g, p), mayLeave(g, p)} {
			want := refusal
			if may {
				want = rule.Return
			}
			l := rule.GuardLists(g)[i]
			if got := judge(t, l, p); got != want {
				t.Fatalf("%v: %+v of %+v: verdict %d, want %d", l.Place, p, g, got, want)
			}
		}
	})
}

func TestMasqueradeTranslatesExactlyWhatItShould(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		f := rapid.SampledFrom([]opt.Family{opt.V4, opt.V6}).Draw(t, "family")
		g := setting(t, f)
		m := rule.Masquerading{Scope: g.Scope, Exclude: g.Exclude, Mark: rule.KubeProxyMark(), RandomFully: g.Enforce}
		p := packet{src: corner(t, f, "src"), dst: corner(t, f, "dst"), mark: rapid.SampledFrom([]uint32{0, 0x4000, 0x8000, 0xc000}).Draw(t, "mark")}
		fromPod, toPod := m.Scope.Network.Contains(p.src), m.Scope.Network.Contains(p.dst)
		want := false
		switch {
		case p.mark&0x4000 != 0: // kube-proxy's
		case m.Scope.Subnet.Contains(p.dst): // the owner answers by itself
		case fromPod && m.Scope.Subnet.Contains(p.src) && toPod:
		case fromPod:
			want = !p.dst.IsMulticast() && !within(m.Exclude, p.dst)
		case toPod:
			want = true
		}
		got := judge(t, rule.Postroute(m), p)
		if masqueraded := got == rule.Masquerade || got == rule.MasqueradeRandom; masqueraded != want {
			t.Fatalf("%+v of %+v: verdict %d, want masquerade %v", p, m, got, want)
		}
	})
}

func TestNamesDifferWhenRulesDo(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		f := rapid.SampledFrom([]opt.Family{opt.V4, opt.V6}).Draw(t, "family")
		a, b := setting(t, f), setting(t, f)
		for i := range 2 {
			la, lb := rule.GuardLists(a)[i], rule.GuardLists(b)[i]
			equal := slices.EqualFunc(la.Chains, lb.Chains, func(x, y rule.Chain) bool { return slices.Equal(x.Rules, y.Rules) })
			if (la.Sum() == lb.Sum()) != equal {
				t.Fatalf("%+v and %+v: sums %s and %s", a, b, la.Sum(), lb.Sum())
			}
			for _, c := range la.Named("LODEN-OUT-", rule.SumDigits) {
				if len(c.Name) > 28 { // XT_EXTENSION_MAXNAMELEN less its end
					t.Fatalf("%s is too long for iptables", c.Name)
				}
			}
		}
	})
}

func FuzzParseTitle(f *testing.F) {
	f.Add("loden postrouting 10.244.0.0/16 10.244.1.0/24")
	f.Add("loden postrouting fd44::/48 fd44:0:0:1::/64")
	f.Add("loden postrouting 0.0.0.0/0 ::/0")
	f.Add("")
	f.Fuzz(func(t *testing.T, comment string) {
		s, ok := rule.ParseTitle(rule.Postrouting, comment).Get()
		if !ok {
			return
		}
		l := rule.List{Place: rule.Postrouting, Scope: s}
		if again, ok := rule.ParseTitle(rule.Postrouting, l.Title()).Get(); !ok || again != s || !s.Valid() {
			t.Errorf("%q: %v, then %v", comment, s, again)
		}
	})
}

func TestPrivateNetworksAreMasqueradedByDefault(t *testing.T) {
	for text, want := range map[string]bool{"10.0.0.0/8": true, "203.0.113.0/24": true, "fd44::/48": true, "2001:db8::/32": false} {
		if got := rule.Private(netip.MustParsePrefix(text)); got != want {
			t.Errorf("%s: %v, want %v", text, got, want)
		}
	}
}
