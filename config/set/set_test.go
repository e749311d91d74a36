package set_test

import (
	"net/netip"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/loden-net/loden/config/opt"
	"github.com/loden-net/loden/config/set"
)

func TestPrefixesAreASortedSetWhateverTheOrderOfInsertion(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var all []netip.Prefix
		for range rapid.IntRange(0, 8).Draw(t, "count") {
			text := rapid.SampledFrom([]string{"10.1.2.3/16", "10.1.0.0/16", "192.0.2.0/24", "fd44::1/48", "2001:db8::/32"}).Draw(t, "prefix")
			all = append(all, netip.MustParsePrefix(text))
		}
		s := set.NewPrefixes(all...)
		slices.Reverse(all)
		if again := set.NewPrefixes(append(all, netip.Prefix{})...); again != s {
			t.Fatalf("%v: %q, reversed %q", all, s, again)
		}
		model := map[netip.Prefix]bool{}
		for _, p := range all {
			model[p.Masked()] = true
		}
		members := slices.Concat(slices.Collect(s.Of(opt.V4)), slices.Collect(s.Of(opt.V6)))
		if len(members) != len(model) || s.IsZero() != (len(model) == 0) {
			t.Fatalf("%v: members %v", all, members)
		}
		for _, p := range members {
			if !model[p] {
				t.Fatalf("%v: %v is no member", all, p)
			}
		}
	})
}

func TestNamesLeaveOutWhatIsNoInterfaceName(t *testing.T) {
	s := set.NewNames("eth1", "", "eth0", "a/b", "eth1")
	if s != set.NewNames("eth0", "eth1") || s.String() != "eth0 eth1" || !s.Has("eth1") || s.Has("") || s.Has("eth") {
		t.Errorf("got %q", s)
	}
	if !set.NewNames("").IsZero() || len(slices.Collect(set.Names{}.All())) != 0 {
		t.Error("a set without a name is not empty")
	}
}
