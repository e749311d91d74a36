// Package prefix owns what net/netip lacks for prefixes: the last address, and the way to package
// net's form, which netlink and wgctrl want, and back. It knows nothing of what a prefix is for.
//
// go4.org/netipx has the same three functions. They take less room here than a further dependency,
// of which Loden has 25 at most, would in every review of go.sum.
package prefix

import (
	"net"
	"net/netip"
)

// Last returns the highest address of a prefix: the broadcast address of an IPv4 subnet. The
// invalid prefix has none: the zero Addr.
func Last(p netip.Prefix) netip.Addr {
	if !p.IsValid() {
		return netip.Addr{}
	}
	b := p.Addr().AsSlice()
	for bit := p.Bits(); bit < len(b)*8; bit++ {
		b[bit/8] |= 0x80 >> (bit % 8)
	}
	a, _ := netip.AddrFromSlice(b) // b has the length of an address
	return a
}

// IPNet converts a prefix, host bits included, since netlink takes an interface's address in
// this form too. An invalid prefix has neither address nor mask afterwards.
func IPNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

// FromIPNet converts back, host bits included; false for an invalid address or mask. An IPv4 address
// in 16 bytes, as net.ParseIP makes it, becomes an IPv4 address when the mask is one of IPv4.
func FromIPNet(n net.IPNet) (netip.Prefix, bool) {
	addr, ok := netip.AddrFromSlice(n.IP)
	bits, size := n.Mask.Size()
	if ok && size == 32 {
		addr = addr.Unmap()
	}
	if !ok || size != addr.BitLen() {
		return netip.Prefix{}, false
	}
	return netip.PrefixFrom(addr, bits), true
}
