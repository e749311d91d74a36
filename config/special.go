package config

import (
	"fmt"
	"net/netip"

	"github.com/loden-net/loden/config/opt"
)

// special is a range of addresses that cannot be an overlay: the kernel or every network
// gives them another meaning.
type special struct{ prefix, use string }

// specials returns the special ranges of a family (IANA's special-purpose registries, RFC
// 6890 and its updates, as far as a host treats them specially).
func specials(f opt.Family) []special {
	if f == opt.V4 {
		return []special{
			{"0.0.0.0/8", "this host (RFC 791)"},
			{"127.0.0.0/8", "loopback (RFC 1122)"},
			{"169.254.0.0/16", "link-local, and the metadata services of clouds (RFC 3927)"},
			{"224.0.0.0/4", "multicast (RFC 5771)"},
			{"240.0.0.0/4", "reserved, and broadcast (RFC 1112)"},
		}
	}
	return []special{
		{"::/8", "loopback, IPv4-mapped and translated addresses (RFC 4291, 6052)"},
		{"fe80::/10", "link-local (RFC 4291)"},
		{"ff00::/8", "multicast (RFC 4291)"},
	}
}

// The shortest networks. 10.0.0.0/8 and fd00::/8 are the largest private ranges; anything
// larger holds public addresses of others, which would be routed into the tunnel.
const (
	shortestV4 = 8  // bits
	shortestV6 = 16 // bits; 8 within fc00::/7, the unique local addresses
)

// checkNetwork refuses a network that cannot be an overlay: with it the host itself, its
// gateway or the store would be routed into the tunnel.
func checkNetwork(n names, p netip.Prefix) error {
	shortest, example := shortestV4, "10.244.0.0/16"
	if n.family == opt.V6 {
		shortest, example = shortestV6, "fd00:10:244::/48"
		if netip.MustParsePrefix("fc00::/7").Contains(p.Addr()) { // a constant: it cannot panic
			shortest = 8
		}
	}
	for _, s := range specials(n.family) {
		if r := netip.MustParsePrefix(s.prefix); r.Overlaps(p) { // a constant: it cannot panic
			return fmt.Errorf("%s %s overlaps %s, which is %s: give a private range, for example %s", n.network, p, r, s.use, example)
		}
	}
	if p.Bits() < shortest {
		return fmt.Errorf("%s %s is larger than a /%d: the addresses of the store, the gateway and other hosts would be routed into the tunnel: "+
			"give a private range, for example %s", n.network, p, shortest, example)
	}
	return nil
}
