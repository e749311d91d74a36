package offload_test

import (
	"encoding/binary"
	"net/netip"

	"golang.org/x/sys/unix"
	"pgregory.net/rapid"

	"github.com/loden-net/loden/backend/engine/wg/offload"
)

// packet describes a packet in the words of its headers: the slow and obvious model that
// the package is compared with.
type packet struct {
	src, dst     netip.Addr
	tos, ttl     uint8
	id           uint16
	dontFragment bool
	extension    bool // IPv6: a destination options header before the transport
	udp          bool
	sport, dport uint16
	seq, ack     uint32
	flags        uint8
	window       uint16
	options      []byte // TCP
	payload      []byte
}

// slowSum is RFC 1071 word by word.
func slowSum(b []byte) uint32 {
	sum := uint32(0)
	for i, c := range b {
		if i%2 == 0 {
			sum += uint32(c) << 8
		} else {
			sum += uint32(c)
		}
		sum = sum&0xffff + sum>>16
	}
	return sum
}

// transport returns the TCP or UDP part. Without complete its checksum is the sum of the
// pseudo-header alone, as a super-packet has it.
func (p packet) transport(complete bool) []byte {
	var b []byte
	at := 16
	b = binary.BigEndian.AppendUint16(b, p.sport)
	b = binary.BigEndian.AppendUint16(b, p.dport)
	protocol := byte(unix.IPPROTO_TCP)
	if p.udp {
		at, protocol = 6, unix.IPPROTO_UDP
		b = binary.BigEndian.AppendUint16(b, uint16(8+len(p.payload)))
		b = append(b, 0, 0)
	} else {
		b = binary.BigEndian.AppendUint32(b, p.seq)
		b = binary.BigEndian.AppendUint32(b, p.ack)
		b = append(b, byte(20+len(p.options))<<2, p.flags)
		b = binary.BigEndian.AppendUint16(b, p.window)
		b = append(b, 0, 0, 0, 0)
		b = append(b, p.options...)
	}
	b = append(b, p.payload...)
	ends := append(p.src.AsSlice(), p.dst.AsSlice()...)
	ends = append(ends, 0, protocol, byte(len(b)>>8), byte(len(b)))
	sum := uint16(slowSum(ends))
	if complete {
		sum = ^uint16(slowSum(append(ends, b...)))
		if sum == 0 {
			sum = 0xffff // as skb_checksum_help
		}
	}
	binary.BigEndian.PutUint16(b[at:], sum)
	return b
}

// bytes returns the packet as it is on the wire, or as a super-packet has it.
func (p packet) bytes(complete bool) []byte {
	t := p.transport(complete)
	protocol := byte(unix.IPPROTO_TCP)
	if p.udp {
		protocol = unix.IPPROTO_UDP
	}
	if p.src.Is6() {
		if p.extension {
			t = append([]byte{protocol, 0, 1, 4, 0, 0, 0, 0}, t...)
			protocol = unix.IPPROTO_DSTOPTS
		}
		b := []byte{0x60 | p.tos>>4, p.tos << 4, 0, 0, byte(len(t) >> 8), byte(len(t)), protocol, p.ttl}
		return append(append(append(b, p.src.AsSlice()...), p.dst.AsSlice()...), t...)
	}
	n := 20 + len(t)
	b := []byte{0x45, p.tos, byte(n >> 8), byte(n), byte(p.id >> 8), byte(p.id), 0, 0, p.ttl, protocol, 0, 0}
	if p.dontFragment {
		b[6] = 0x40
	}
	b = append(append(b, p.src.AsSlice()...), p.dst.AsSlice()...)
	binary.BigEndian.PutUint16(b[10:], ^uint16(slowSum(b)))
	return append(b, t...)
}

// cut returns the packets that p stands for when it is a super-packet of this segment size.
func (p packet) cut(size int) []packet {
	var out []packet
	for from := 0; from < len(p.payload); from += size {
		s := p
		s.payload = p.payload[from:min(from+size, len(p.payload))]
		s.id += uint16(len(out))
		s.seq += uint32(from)
		if from > 0 {
			s.flags &^= 0x80
		}
		if from+size < len(p.payload) {
			s.flags &^= 0x09
		}
		out = append(out, s)
	}
	return out
}

// header returns the virtio header that the kernel would put before p as a super-packet.
func (p packet) header(size int) offload.Header {
	h := offload.Header{NeedsChecksum: true, SegmentSize: uint16(size), ChecksumStart: 20, ChecksumOffset: 16, Type: unix.VIRTIO_NET_HDR_GSO_TCPV4}
	if p.src.Is6() {
		h.ChecksumStart, h.Type = 40, unix.VIRTIO_NET_HDR_GSO_TCPV6
	}
	if p.extension {
		h.ChecksumStart += 8
	}
	if p.udp {
		h.ChecksumOffset, h.Type = 6, unix.VIRTIO_NET_HDR_GSO_UDP_L4
	}
	return h
}

// anyPacket draws the headers of a packet of a random flow among a few.
func anyPacket(t *rapid.T) packet {
	p := packet{
		src: netip.MustParseAddr("10.0.0.1"), dst: netip.MustParseAddr("10.0.0.2"),
		ttl: 64, sport: uint16(rapid.IntRange(1, 3).Draw(t, "port")), dport: 80,
		id: rapid.Uint16().Draw(t, "id"), dontFragment: rapid.Bool().Draw(t, "df"),
		udp: rapid.Bool().Draw(t, "udp"), tos: rapid.SampledFrom([]uint8{0, 1, 3, 0xb8}).Draw(t, "tos"),
		seq: rapid.Uint32().Draw(t, "seq"), ack: 77, window: 500, flags: 0x10,
	}
	if rapid.Bool().Draw(t, "v6") {
		p.src, p.dst = netip.MustParseAddr("fd00::1"), netip.MustParseAddr("fd00::2")
		p.extension = rapid.IntRange(0, 4).Draw(t, "extension") == 0
		p.id, p.dontFragment = 0, false
	}
	if p.udp {
		p.seq, p.ack, p.window, p.flags = 0, 0, 0, 0
	} else if rapid.Bool().Draw(t, "timestamps") {
		p.options = []byte{1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2}
	}
	return p
}

// anyPayload draws bytes of a length up to limit.
func anyPayload(t *rapid.T, limit int) []byte {
	b := make([]byte, rapid.IntRange(1, limit).Draw(t, "length"))
	seed := rapid.Uint32().Draw(t, "content")
	for i := range b {
		seed = seed*1664525 + 1013904223
		b[i] = byte(seed >> 24)
	}
	return b
}
