// Package icmp owns the error messages with which a router answers a packet that it does
// not pass on: RFC 792 and RFC 4443. It computes and never waits; it knows no devices and
// no peers, and not how often messages may be sent.
//
// A message comes from the address that the packet was for. RFC 1812, section 4.3.2.4, and
// RFC 4443, section 2.2, want an address of the router; but these messages are written into
// a TUN device, and there the kernel takes a source address of its own for forged:
// it drops IPv4 as "martian" (fib_validate_source), and the rpfilter of firewalls drops
// both families. The address that the packet was for is always routed to the device that
// the packet came out of, so it passes these checks; and the sender
// learns the meaning of the message from the packet it quotes.
package icmp

import (
	"encoding/binary"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/loden-net/loden/backend/engine/wg/offload"
)

// MaxSize is the most bytes a message has, IP header included.
const MaxSize = maxSize6

const (
	header4  = 20   // bytes, without options
	header6  = 40   // bytes, without extension headers
	header   = 8    // bytes, of ICMP and ICMPv6
	maxSize4 = 576  // RFC 1812, section 4.3.2.3
	maxSize6 = 1280 // the least MTU of IPv6: RFC 4443, section 3.1

	// Types and codes of RFC 792.
	unreachable4         = 3
	hostUnreachable4     = 1 // code
	fragmentationNeeded4 = 4 // code; RFC 1191, section 4
	sourceQuench4        = 4
	redirect4            = 5
	timeExceeded4        = 11
	parameterProblem4    = 12

	// Types and codes of RFC 4443.
	unreachable6        = 1
	addressUnreachable6 = 3 // code
	tooBig6             = 2

	icmpv6InfoMask = 1 << 7 // types without it are errors: RFC 4443, section 2.1
	icmpv6Redirect = 137    // RFC 4861, section 4.5
)

// message is the part of a message before the quoted packet.
type message struct {
	kind, code uint8
	rest       uint32
}

// Unreachable appends to b the message that there is no way to the host that pkt is for, as
// kernel WireGuard sends it (wg_xmit of drivers/net/wireguard/device.c), or returns nil when
// pkt must not be answered.
func Unreachable(b, pkt []byte) []byte {
	return answer(b, pkt, message{kind: unreachable4, code: hostUnreachable4}, message{kind: unreachable6, code: addressUnreachable6})
}

// TooBig appends to b the message that pkt has more than mtu bytes (RFC 1191, section 4;
// RFC 4443, section 3.2), or returns nil when pkt must not be answered.
func TooBig(b, pkt []byte, mtu uint16) []byte {
	return answer(b, pkt, message{kind: unreachable4, code: fragmentationNeeded4, rest: uint32(mtu)}, message{kind: tooBig6, rest: uint32(mtu)})
}

// MayFragment reports whether pkt, an IP packet, may be sent on in fragments.
func MayFragment(pkt []byte) bool { return pkt[0]>>4 == 4 && pkt[6]&0x40 == 0 }

func answer(b, pkt []byte, v4, v6 message) []byte {
	switch {
	case len(pkt) >= header4 && pkt[0]>>4 == 4:
		return answer4(b, pkt, v4)
	case len(pkt) >= header6 && pkt[0]>>4 == 6:
		return answer6(b, pkt, v6)
	}
	return nil
}

func answer4(b, pkt []byte, m message) []byte {
	total := int(binary.BigEndian.Uint16(pkt[2:]))
	if total > len(pkt) || !answerable4(pkt[:total]) {
		return nil
	}
	quote := pkt[:min(total, maxSize4-header4-header)]
	size, from := header4+header+len(quote), len(b)
	// Precedence 6: RFC 1812, section 4.3.2.5. Not to be fragmented: RFC 6864, section 4.1.
	b = append(b, 0x45, 6<<5, byte(size>>8), byte(size), 0, 0, 0x40, 0, 64, unix.IPPROTO_ICMP, 0, 0)
	b = append(append(b, pkt[16:20]...), pkt[12:16]...)
	binary.BigEndian.PutUint16(b[from+10:], ^offload.Sum(b[from:], 0))
	b = m.append(b, quote)
	body := b[from+header4:]
	binary.BigEndian.PutUint16(body[2:], ^offload.Sum(body, 0))
	return b
}

func answer6(b, pkt []byte, m message) []byte {
	total := header6 + int(binary.BigEndian.Uint16(pkt[4:]))
	if total > len(pkt) || !answerable6(pkt[:total]) {
		return nil
	}
	quote := pkt[:min(total, maxSize6-header6-header)]
	size, from := header+len(quote), len(b)
	b = append(b, 6<<4, 0, 0, 0, byte(size>>8), byte(size), unix.IPPROTO_ICMPV6, 64)
	b = append(append(b, pkt[24:40]...), pkt[8:24]...)
	b = m.append(b, quote)
	body := b[from+header6:]
	pseudo := offload.Sum(b[from+8:from+header6], uint16(size)+unix.IPPROTO_ICMPV6) // RFC 8200, section 8.1
	binary.BigEndian.PutUint16(body[2:], ^offload.Sum(body, pseudo))
	return b
}

// append appends the message, without its checksum.
func (m message) append(b, quote []byte) []byte {
	b = append(b, m.kind, m.code, 0, 0)
	return append(binary.BigEndian.AppendUint32(b, m.rest), quote...)
}

// answerable4 reports whether an error may be sent about pkt: RFC 1812, section 4.3.2.7.
// Whether an address is the broadcast address of some subnet cannot be known here.
func answerable4(pkt []byte) bool {
	if len(pkt) < header4 {
		return false
	}
	size := int(pkt[0]&15) * 4
	later := binary.BigEndian.Uint16(pkt[6:])&0x1fff != 0 // a fragment other than the first
	if size < header4 || size > len(pkt) || later {
		return false
	}
	if !host(netip.AddrFrom4([4]byte(pkt[12:16]))) || !host(netip.AddrFrom4([4]byte(pkt[16:20]))) {
		return false
	}
	return pkt[9] != unix.IPPROTO_ICMP || (size < len(pkt) && !isError4(pkt[size]))
}

// isError4 reports whether that is the type of an ICMP error: RFC 792, RFC 1122 section 3.2.2.
func isError4(kind uint8) bool {
	switch kind {
	case unreachable4, sourceQuench4, redirect4, timeExceeded4, parameterProblem4:
		return true
	}
	return false
}

// answerable6 reports whether an error may be sent about pkt: RFC 4443, section 2.4 (e). It
// would let "packet too big" answer multicast, but there is no address to answer from.
func answerable6(pkt []byte) bool {
	if !host(netip.AddrFrom16([16]byte(pkt[8:24]))) || !host(netip.AddrFrom16([16]byte(pkt[24:40]))) {
		return false
	}
	next, at := pkt[6], header6
	for { // RFC 8200, section 4; RFC 4302, section 2.2
		if next != unix.IPPROTO_ICMPV6 && !isExtension(next) {
			return true
		}
		if at+8 > len(pkt) {
			return false // whether this is about an error cannot be told
		}
		size := 8 + int(pkt[at+1])*8
		switch next {
		case unix.IPPROTO_ICMPV6:
			return pkt[at]&icmpv6InfoMask != 0 && pkt[at] != icmpv6Redirect
		case unix.IPPROTO_FRAGMENT:
			if binary.BigEndian.Uint16(pkt[at+2:])>>3 != 0 {
				return false
			}
			size = 8
		case unix.IPPROTO_AH:
			size = 8 + int(pkt[at+1])*4
		}
		next, at = pkt[at], at+size
	}
}

func isExtension(next uint8) bool {
	switch next {
	case unix.IPPROTO_HOPOPTS, unix.IPPROTO_ROUTING, unix.IPPROTO_DSTOPTS, unix.IPPROTO_FRAGMENT, unix.IPPROTO_AH:
		return true
	}
	return false
}

// host reports whether a is the address of a single host: not unspecified, loopback, multicast or broadcast.
func host(a netip.Addr) bool {
	if a.IsUnspecified() || a.IsLoopback() || a.IsMulticast() {
		return false
	}
	if a.Is4() {
		first := a.As4()[0]
		return first != 0 && first < 240 // "this network" and class E, which 255.255.255.255 is of
	}
	return true
}
