package offload

import (
	"encoding/binary"

	"golang.org/x/sys/unix"
)

const (
	ipv4Size = 20 // without options
	ipv6Size = 40 // without extension headers
	udpSize  = 8
	tcpSize  = 20 // without options

	flagFIN = 0x01
	flagPSH = 0x08
	flagACK = 0x10
	flagCWR = 0x80
)

// protocolAt returns the protocol of the transport header that begins at start, or 0xff
// where the headers before it do not lead there.
func protocolAt(pkt []byte, start int) uint8 {
	if len(pkt) < ipv4Size {
		return 0xff
	}
	switch pkt[0] >> 4 {
	case 4:
		if int(pkt[0]&15)*4 == start {
			return pkt[9]
		}
	case 6:
		return protocolAt6(pkt, start)
	}
	return 0xff
}

// protocolAt6 walks the extension headers of an IPv6 packet: RFC 8200, section 4.
func protocolAt6(pkt []byte, start int) uint8 {
	if len(pkt) < ipv6Size {
		return 0xff
	}
	next, at := pkt[6], ipv6Size
	for at < start {
		if at+8 > len(pkt) {
			return 0xff
		}
		switch next {
		case unix.IPPROTO_HOPOPTS, unix.IPPROTO_ROUTING, unix.IPPROTO_DSTOPTS:
			next, at = pkt[at], at+8+int(pkt[at+1])*8
		default:
			return 0xff // a fragment or something unknown: not ours to segment
		}
	}
	if at != start {
		return 0xff
	}
	return next
}

// addresses returns source and destination as they lie in the IP header.
func addresses(pkt []byte) []byte {
	if pkt[0]>>4 == 4 {
		return pkt[12:20]
	}
	return pkt[8:40]
}

// setLength writes the packet's total length into its IP header, and for IPv4 the
// identification and the header checksum over headerLen bytes.
func setLength(pkt []byte, headerLen, total int, id uint16) {
	if pkt[0]>>4 == 6 {
		binary.BigEndian.PutUint16(pkt[4:], uint16(total-ipv6Size))
		return
	}
	binary.BigEndian.PutUint16(pkt[2:], uint16(total))
	binary.BigEndian.PutUint16(pkt[4:], id)
	binary.BigEndian.PutUint16(pkt[10:], 0)
	binary.BigEndian.PutUint16(pkt[10:], ^Sum(pkt[:headerLen], 0))
}
