package backend

import "github.com/loden-net/loden/config/opt"

// Overhead returns the size that WireGuard adds to an inner packet on an underlay of family f, in
// bytes: outer IP header, UDP header, WireGuard's data header (type, receiver, counter) and
// authentication tag. 60 over IPv4, 80 over IPv6.
func Overhead(f opt.Family) int {
	if f == opt.V6 {
		return 40 + 8 + 16 + 16
	}
	return 20 + 8 + 16 + 16
}

// MinIPv6MTU is the smallest MTU, in bytes, of a link that carries IPv6 (RFC 8200, section 5).
// The kernel takes IPv6 away from an interface whose MTU is smaller, so a Device leaves the IPv6
// address out there, and IPv4 stands alone.
const MinIPv6MTU = 1280

// TunnelMTU returns the MTU of the tunnel over an uplink, in bytes: the largest inner packet
// that fits on every family of the underlay. An empty underlay, not yet known, counts as both
// families.
func TunnelMTU(uplinkMTU int, underlay []opt.Family) int {
	if len(underlay) == 0 {
		underlay = []opt.Family{opt.V4, opt.V6}
	}
	overhead := 0
	for _, f := range underlay {
		overhead = max(overhead, Overhead(f))
	}
	return uplinkMTU - overhead
}
