package subnet_test

import (
	"errors"
	"fmt"
	"net/netip"
	"testing"

	"pgregory.net/rapid"

	"github.com/loden-net/loden/config"
	"github.com/loden-net/loden/config/opt"
	"github.com/loden-net/loden/subnet"
)

func parse(t testing.TB, doc string) config.Network {
	t.Helper()
	n, err := config.ParseNetwork([]byte(doc))
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// every lists all subnets of a small range in turn: the obvious way.
func every(r config.Range) []netip.Prefix {
	var out []netip.Prefix
	for p := netip.PrefixFrom(r.SubnetMin, r.SubnetLen); ; {
		out = append(out, p)
		if p.Addr() == r.SubnetMax {
			return out
		}
		a := p.Addr()
		for p.Contains(a) {
			a = a.Next()
		}
		p = netip.PrefixFrom(a, r.SubnetLen)
	}
}

// free lists the subnets of a range that overlap no lease.
func free(r config.Range, f opt.Family, taken []subnet.Lease) map[netip.Prefix]bool {
	out := map[netip.Prefix]bool{}
	for _, p := range every(r) {
		out[p] = true
		for _, l := range taken {
			if q, ok := l.Subnets.Of(f).Get(); ok && q.Overlaps(p) {
				delete(out, p)
			}
		}
	}
	return out
}

// small draws a network with at most a few hundred small subnets.
func small(t *rapid.T) config.Network {
	length := rapid.IntRange(26, 30).Draw(t, "length")
	bits := rapid.IntRange(max(length-6, 20), length-2).Draw(t, "network")
	doc := fmt.Sprintf(`{"Network":"10.5.0.0/%d","SubnetLen":%d,"EnableIPv6":true,"IPv6Network":"fd00:5::/%d","IPv6SubnetLen":%d}`,
		bits, length, 96+bits, 96+length)
	if rapid.Bool().Draw(t, "IPv4 only") {
		doc = fmt.Sprintf(`{"Network":"10.5.0.0/%d","SubnetLen":%d}`, bits, length)
	}
	n, err := config.ParseNetwork([]byte(doc))
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// someLeases draws leases of any length in and around a network.
func someLeases(t *rapid.T, n config.Network) []subnet.Lease {
	var out []subnet.Lease
	for range rapid.IntRange(0, 40).Draw(t, "leases") {
		var l subnet.Lease
		for f, r := range n.Ranges.All() {
			list := every(r)
			p := rapid.SampledFrom(list).Draw(t, "lease")
			length := min(max(p.Bits()+rapid.IntRange(-2, 1).Draw(t, "longer"), r.Network.Bits()-1), f.Bits())
			l.Subnets = l.Subnets.With(f, netip.PrefixFrom(p.Addr(), length).Masked())
		}
		out = append(out, l)
	}
	return out
}

func TestAllocateAgreesWithTheObviousModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := small(t)
		taken := someLeases(t, n)
		var prefer opt.Dual[netip.Prefix]
		for f, r := range n.Ranges.All() {
			if rapid.Bool().Draw(t, "prefer") {
				prefer = prefer.With(f, rapid.SampledFrom(every(r)).Draw(t, "preferred"))
			}
		}
		got, err := subnet.Allocate(n, rapid.String().Draw(t, "seed"), prefer, taken)
		for f, r := range n.Ranges.All() {
			room := free(r, f, taken)
			if err != nil {
				continue
			}
			p, _ := got.Of(f).Get()
			if !room[p] || !r.Contains(p) {
				t.Fatalf("%s: got %s, free are %v", f, p, room)
			}
			if want, ok := prefer.Of(f).Get(); ok && room[want] && p != want {
				t.Fatalf("%s: got %s, preferred %s is free", f, p, want)
			}
		}
		full := false
		for f, r := range n.Ranges.All() {
			full = full || len(free(r, f, taken)) == 0
		}
		if full != errors.Is(err, subnet.ErrOutOfSubnets) || !full && err != nil {
			t.Fatalf("full: %v, error: %v", full, err)
		}
	})
}

func TestAllocateReachesEverySubnet(t *testing.T) {
	n := parse(t, `{"Network":"10.5.0.0/24","SubnetLen":28,"EnableIPv6":true,"IPv6Network":"fd00:5::/56","IPv6SubnetLen":64}`)
	var taken []subnet.Lease
	for i := range 15 {
		got, err := subnet.Allocate(n, fmt.Sprint(i), opt.Dual[netip.Prefix]{}, taken)
		if err != nil {
			t.Fatalf("lease %d: %v", i, err)
		}
		taken = append(taken, subnet.Lease{Subnets: got})
	}
	if _, err := subnet.Allocate(n, "one more", opt.Dual[netip.Prefix]{}, taken); !errors.Is(err, subnet.ErrOutOfSubnets) {
		t.Errorf("got %v, want ErrOutOfSubnets", err)
	}
}

func TestAllocateSpreadsNodesThatStartTogether(t *testing.T) {
	n := parse(t, `{"Network":"10.0.0.0/8","EnableIPv6":true,"IPv6Network":"fd00:5::/40"}`)
	met := map[opt.Dual[netip.Prefix]]int{}
	const nodes = 1000
	for i := range nodes {
		got, err := subnet.Allocate(n, fmt.Sprintf("worker-%d#0", i), opt.Dual[netip.Prefix]{}, nil)
		if err != nil {
			t.Fatal(err)
		}
		met[got]++
	}
	// 1000 of 65535 at random: 1000² / 2 / 65535 = 7.6 pairs that meet; 30 would be odd.
	if lost := nodes - len(met); lost > 30 {
		t.Errorf("%d of %d nodes chose a subnet that another chose", lost, nodes)
	}
}

func TestAllocateGivesBothFamiliesTheSameNumber(t *testing.T) {
	n := parse(t, `{"Network":"10.244.0.0/16","EnableIPv6":true,"IPv6Network":"fd00:244::/48"}`)
	got, err := subnet.Allocate(n, "x", opt.Dual[netip.Prefix]{V4: opt.Some(netip.MustParsePrefix("10.244.7.0/24"))}, nil)
	if err != nil || subnet.FormatKey(got) != "10.244.7.0-24&fd00:244:0:7::-64" {
		t.Errorf("got %v, %v", got, err)
	}
}

func TestAllocateInTheWidestRanges(t *testing.T) {
	for _, doc := range []string{
		`{"Network":"10.0.0.0/8","SubnetLen":30}`,
		`{"EnableIPv4":false,"EnableIPv6":true,"IPv6Network":"fc00::/8","IPv6SubnetLen":126}`,
		`{"EnableIPv4":false,"EnableIPv6":true,"IPv6Network":"fd00::/8"}`,
	} {
		n := parse(t, doc)
		taken := []subnet.Lease{{Subnets: opt.Dual[netip.Prefix]{V4: opt.Some(netip.MustParsePrefix("0.0.0.0/1")), V6: opt.Some(netip.MustParsePrefix("::/1"))}}}
		taken[0].Subnets.V4 = opt.Some(netip.MustParsePrefix("10.0.0.0/9"))
		taken[0].Subnets.V6 = opt.Some(netip.MustParsePrefix("fd00::/16"))
		for i := range 50 {
			got, err := subnet.Allocate(n, fmt.Sprint(i), opt.Dual[netip.Prefix]{}, taken)
			if err != nil {
				t.Fatalf("%s: %v", doc, err)
			}
			for f, p := range got.All() {
				r, _ := n.Ranges.Of(f).Get()
				if q, _ := taken[0].Subnets.Of(f).Get(); !r.Contains(p) || q.Overlaps(p) {
					t.Errorf("%s: got %s", doc, p)
				}
			}
		}
	}
}
