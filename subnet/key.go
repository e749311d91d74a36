package subnet

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"github.com/loden-net/loden/config/opt"
)

// FormatKey returns the last element of a lease's key in the store. IPv4 and dual-stack
// forms are flannel's, byte for byte; flannel has none for IPv6 alone, so that is ours:
//
//	10.5.1.0-24
//	10.5.1.0-24&fc00:0:0:1::-64
//	fc00:0:0:1::-64
//
// No subnet at all gives "".
func FormatKey(subnets opt.Dual[netip.Prefix]) string {
	var parts []string
	for _, p := range subnets.All() {
		parts = append(parts, FormatSubnet(p))
	}
	return strings.Join(parts, "&")
}

// FormatSubnet returns a subnet as it stands in keys: the '/' of a CIDR would start
// another level, so it is a '-'.
func FormatSubnet(p netip.Prefix) string {
	return p.Addr().String() + "-" + strconv.Itoa(p.Bits())
}

// ParseKey reads the text that FormatKey writes, and no other text: no second spelling of an address,
// no host bits, no length 0, no zone, no IPv4-mapped IPv6. So each set of subnets has
// a single key, and each key a single set. It never panics.
func ParseKey(key string) (opt.Dual[netip.Prefix], error) {
	var none opt.Dual[netip.Prefix]
	first, second, both := strings.Cut(key, "&")
	p, err := parseSubnet(first)
	if err != nil {
		return none, fmt.Errorf("read lease key %q: %w", clip(key), err)
	}
	subnets := none.With(opt.FamilyOf(p.Addr()), p)
	if !both {
		return subnets, nil
	}
	if p, err = parseSubnet(second); err != nil {
		return none, fmt.Errorf("read lease key %q: %w", clip(key), err)
	}
	if !subnets.V4.Present() || opt.FamilyOf(p.Addr()) != opt.V6 {
		return none, fmt.Errorf("read lease key %q: want an IPv4 subnet, then an IPv6 one", clip(key))
	}
	return subnets.With(opt.V6, p), nil
}

// parseSubnet reads a text "address-length".
func parseSubnet(text string) (netip.Prefix, error) {
	address, length, ok := strings.Cut(text, "-")
	if !ok {
		return netip.Prefix{}, fmt.Errorf("subnet %q has no length", clip(text))
	}
	a, err := netip.ParseAddr(address)
	if err != nil || a.Is4In6() || a.Zone() != "" {
		return netip.Prefix{}, fmt.Errorf("subnet %q has no valid address", clip(text))
	}
	bits, err := strconv.Atoi(length)
	if err != nil || bits < 1 || bits > a.BitLen() {
		return netip.Prefix{}, fmt.Errorf("subnet %q has no valid length", clip(text))
	}
	p := netip.PrefixFrom(a, bits)
	if p != p.Masked() || FormatSubnet(p) != text {
		return netip.Prefix{}, fmt.Errorf("subnet %q is not in canonical form: want %s", clip(text), FormatSubnet(p.Masked()))
	}
	return p, nil
}

// clip keeps text of other writers from flooding a log line.
func clip(s string) string {
	const limit = 120 // longer than the longest valid key, 18 + 1 + 43 bytes
	if len(s) <= limit {
		return s
	}
	return s[:limit] + "..."
}
