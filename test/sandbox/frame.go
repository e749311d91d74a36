package sandbox

import (
	"encoding/binary"
	"net/netip"

	"golang.org/x/sys/unix"
)

// Packet is the outermost headers of an Ethernet frame, as far as they could be read. The
// zero value is a frame that was too short for any.
type Packet struct {
	EtherType uint16     // unix.ETH_P_*
	Src, Dst  netip.Addr // invalid unless it is IP; sender and target for ARP
	Protocol  uint8      // unix.IPPROTO_*, behind the extension headers of IPv6
	SrcPort   uint16     // UDP and TCP, first fragments only; of the packet that an "unreachable" quotes
	DstPort   uint16
	ICMPType  uint8 // ICMP and ICMPv6
}

// The types of "destination unreachable": RFC 792 and RFC 4443.
const (
	unreachable4 = 3
	unreachable6 = 1
)

// Unreachable reports whether the packet says that a packet of its receiver was not delivered.
func (p Packet) Unreachable() bool {
	return p.Protocol == unix.IPPROTO_ICMP && p.ICMPType == unreachable4 || p.Protocol == unix.IPPROTO_ICMPV6 && p.ICMPType == unreachable6
}

// ParseFrame reads an Ethernet frame. It takes any bytes.
func ParseFrame(frame []byte) Packet {
	var p Packet
	if len(frame) < 14 { // 6 + 6 addresses + 2 type
		return p
	}
	p.EtherType = binary.BigEndian.Uint16(frame[12:])
	data := frame[14:]
	if p.EtherType == unix.ETH_P_8021Q && len(data) >= 4 {
		p.EtherType, data = binary.BigEndian.Uint16(data[2:]), data[4:]
	}
	switch p.EtherType {
	case unix.ETH_P_ARP:
		if len(data) >= 28 && binary.BigEndian.Uint16(data[2:]) == unix.ETH_P_IP {
			p.Src, _ = netip.AddrFromSlice(data[14:18])
			p.Dst, _ = netip.AddrFromSlice(data[24:28])
		}
	case unix.ETH_P_IP:
		p.parseIPv4(data)
	case unix.ETH_P_IPV6:
		p.parseIPv6(data)
	}
	return p
}

func (p *Packet) parseIPv4(data []byte) {
	if len(data) < 20 {
		return
	}
	p.Protocol = data[9]
	p.Src, _ = netip.AddrFromSlice(data[12:16])
	p.Dst, _ = netip.AddrFromSlice(data[16:20])
	headerLen := int(data[0]&0x0f) * 4
	laterFragment := binary.BigEndian.Uint16(data[6:])&0x1fff != 0
	if headerLen >= 20 && len(data) >= headerLen && !laterFragment {
		p.parseTransport(data[headerLen:])
	}
}

func (p *Packet) parseIPv6(data []byte) {
	if len(data) < 40 {
		return
	}
	p.Src, _ = netip.AddrFromSlice(data[8:24])
	p.Dst, _ = netip.AddrFromSlice(data[24:40])
	p.Protocol, data = data[6], data[40:]
	for {
		headerLen := 0
		switch p.Protocol {
		case unix.IPPROTO_HOPOPTS, unix.IPPROTO_ROUTING, unix.IPPROTO_DSTOPTS:
			if len(data) >= 2 {
				headerLen = 8 + int(data[1])*8
			}
		case unix.IPPROTO_FRAGMENT:
			if len(data) >= 8 && binary.BigEndian.Uint16(data[2:])&0xfff8 == 0 {
				headerLen = 8
			}
		default:
			p.parseTransport(data)
			return
		}
		if headerLen == 0 || len(data) < headerLen {
			return
		}
		p.Protocol, data = data[0], data[headerLen:]
	}
}

func (p *Packet) parseTransport(data []byte) {
	switch p.Protocol {
	case unix.IPPROTO_UDP, unix.IPPROTO_TCP:
		if len(data) >= 4 {
			p.SrcPort, p.DstPort = binary.BigEndian.Uint16(data), binary.BigEndian.Uint16(data[2:])
		}
	case unix.IPPROTO_ICMP, unix.IPPROTO_ICMPV6:
		if len(data) >= 1 {
			p.ICMPType = data[0]
		}
		if p.Unreachable() && len(data) > 8 {
			var quoted Packet
			if p.Protocol == unix.IPPROTO_ICMP {
				quoted.parseIPv4(data[8:])
			} else {
				quoted.parseIPv6(data[8:])
			}
			p.SrcPort, p.DstPort = quoted.SrcPort, quoted.DstPort
		}
	}
}
