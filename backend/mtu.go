package backend

import "github.com/loden-net/loden/config/opt"

// Overhead returns what WireGuard adds to an inner packet on an underlay of family f, in
// bytes: outer IP header, UDP header, WireGuard's data header (type, receiver, counter) and
// authentication tag. 60 over IPv4, 80 over IPv6.
func Overhead(f opt.Family) int {
	if f == opt.V6 {
		return 40 + 8 + 16 + 16
	}
	return 20 + 8 + 16 + 16
}

// TunnelMTU returns the MTU of the tunnel over an uplink, in bytes: the largest inner
// packet that fits on every underlay family that is used. No family at all counts as both.
func TunnelMTU[T any](uplinkMTU int, underlay opt.Dual[T]) int {
	overhead := 0
	for f := range underlay.All() {
		overhead = max(overhead, Overhead(f))
	}
	if overhead == 0 {
		overhead = max(Overhead(opt.V4), Overhead(opt.V6))
	}
	return uplinkMTU - overhead
}
