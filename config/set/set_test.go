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

func TestPortsReadTheirOwnTextAndRefuseOthers(t *testing.T) {
	s, err := set.ParsePorts(" 22380,22379, 22379")
	if err != nil || s != set.NewPorts(22379, 22380, 0) || s.String() != "22379,22380" || s.IsZero() || !slices.Equal(slices.Collect(s.All()), []uint16{22379, 22380}) {
		t.Errorf("got %q, %v", s, err)
	}
	if again, err := set.ParsePorts(s.String()); err != nil || again != s {
		t.Errorf("read again: %q, %v", again, err)
	}
	if s, err := set.ParsePorts(""); err != nil || !s.IsZero() || len(slices.Collect(s.All())) > 0 {
		t.Errorf("the empty text: %q, %v", s, err)
	}
	for _, bad := range []string{"0", "65536", "a", "1,,2", "1-2", "-1", ","} {
		if s, err := set.ParsePorts(bad); err == nil {
			t.Errorf("%q is read as %q", bad, s)
		}
	}
}
