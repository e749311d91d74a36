package prefix

import (
	"net"
	"net/netip"
	"testing"

	"pgregory.net/rapid"
)

// prefixes draws valid prefixes of both families, with host bits.
func prefixes() *rapid.Generator[netip.Prefix] {
	return rapid.Custom(func(t *rapid.T) netip.Prefix {
		size := rapid.SampledFrom([]int{4, 16}).Draw(t, "size")
		addr, _ := netip.AddrFromSlice(rapid.SliceOfN(rapid.Byte(), size, size).Draw(t, "address"))
		return netip.PrefixFrom(addr, rapid.IntRange(0, size*8).Draw(t, "bits"))
	})
}

func TestLastAddressIsInThePrefixAndTheNextIsNot(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := prefixes().Draw(t, "prefix")
		last := Last(p)
		if !p.Contains(last) || p.Contains(last.Next()) {
			t.Errorf("last address of %s: %s", p, last)
		}
	})
	for text, want := range map[string]string{
		"10.244.3.7/24": "10.244.3.255", "10.244.3.7/32": "10.244.3.7", "0.0.0.0/0": "255.255.255.255",
		"10.244.0.0/22": "10.244.3.255", "fd44:0:0:3::1/64": "fd44::3:ffff:ffff:ffff:ffff",
	} {
		if got := Last(netip.MustParsePrefix(text)); got.String() != want {
			t.Errorf("last address of %s: %s, want %s", text, got, want)
		}
	}
	if got := Last(netip.Prefix{}); got.IsValid() {
		t.Errorf("the invalid prefix has a last address: %s", got)
	}
}

func TestPrefixSurvivesTheWayToPackageNetAndBack(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := prefixes().Draw(t, "prefix")
		n := IPNet(p)
		if n.String() != p.String() && !p.Addr().Is4In6() { // net prints a mapped address in dotted form
			t.Errorf("%s becomes %s", p, n.String())
		}
		if back, ok := FromIPNet(*n); !ok || back != p {
			t.Errorf("%s comes back as %s, %v", p, back, ok)
		}
	})
}

func TestOnlyAnAddressWithAMaskOfItsFamilyIsAPrefix(t *testing.T) {
	long := net.ParseIP("192.0.2.7") // in 16 bytes
	if got, ok := FromIPNet(net.IPNet{IP: long, Mask: net.CIDRMask(24, 32)}); !ok || got.String() != "192.0.2.7/24" {
		t.Errorf("got %s, %v", got, ok)
	}
	for name, n := range map[string]net.IPNet{
		"empty":                       {},
		"no mask":                     {IP: long},
		"no address":                  {Mask: net.CIDRMask(24, 32)},
		"mask with a gap":             {IP: long, Mask: net.IPv4Mask(255, 0, 255, 0)},
		"mask of IPv4 for IPv6":       {IP: net.ParseIP("fd44::1"), Mask: net.CIDRMask(24, 32)},
		"mask of IPv6 for 4 bytes":    {IP: long.To4(), Mask: net.CIDRMask(64, 128)},
		"address of the wrong length": {IP: net.IP{1, 2, 3}, Mask: net.CIDRMask(24, 32)},
	} {
		if got, ok := FromIPNet(n); ok {
			t.Errorf("%s: taken as %s", name, got)
		}
	}
}
