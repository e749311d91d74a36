package offload

import (
	"encoding/binary"

	"golang.org/x/sys/unix"
)

// maxHeaders is the most bytes of headers that a super-packet may have before its payload.
const maxHeaders = 256

// Split cuts a super-packet into segments, in place: the headers of a segment are written
// over the tail of the segment before it, which must therefore be done with by then. The
// zero value is ready; Reset begins a packet. It does not allocate.
type Split struct {
	pkt       []byte
	header    [maxHeaders]byte // as it was, before segments wrote over it
	size      int              // of the headers
	transport int              // where the transport header begins
	segment   int              // payload of a full segment
	count     int
	next      int
	udp       bool
	id        uint16
	seq       uint32
	pseudo    uint16 // sum of addresses and protocol; the length is each segment's own
}

// Reset begins to cut pkt, a packet without its virtio header. A packet that h says is no
// super-packet is a single segment, its checksum completed.
func (s *Split) Reset(h Header, pkt []byte) error {
	s.pkt, s.next, s.count, s.size = pkt, 0, 0, 0
	if h.Type == unix.VIRTIO_NET_HDR_GSO_NONE {
		if err := Complete(h, pkt); err != nil {
			return err
		}
		s.count = 1
		return nil
	}
	s.transport, s.segment = int(h.ChecksumStart), int(h.SegmentSize)
	protocol, err := s.transportHeader(h)
	if err != nil {
		return err
	}
	if s.size > maxHeaders || s.size > len(pkt) || s.segment == 0 {
		return ErrMalformed
	}
	s.count = max(1, (len(pkt)-s.size+s.segment-1)/s.segment)
	copy(s.header[:], pkt[:s.size])
	if pkt[0]>>4 == 4 {
		s.id = binary.BigEndian.Uint16(pkt[4:])
	}
	s.pseudo = pseudo(addresses(pkt), protocol, 0)
	return nil
}

// transportHeader checks that the packet has the transport header that the virtio type names,
// and reads it.
func (s *Split) transportHeader(h Header) (protocol uint8, err error) {
	version := uint8(0)
	switch h.Type {
	case unix.VIRTIO_NET_HDR_GSO_TCPV4:
		protocol, version = unix.IPPROTO_TCP, 4
	case unix.VIRTIO_NET_HDR_GSO_TCPV6:
		protocol, version = unix.IPPROTO_TCP, 6
	case unix.VIRTIO_NET_HDR_GSO_UDP_L4:
		protocol = unix.IPPROTO_UDP
	default:
		return 0, ErrMalformed
	}
	pkt := s.pkt
	if protocolAt(pkt, s.transport) != protocol || (version != 0 && pkt[0]>>4 != version) {
		return 0, ErrMalformed
	}
	s.udp = protocol == unix.IPPROTO_UDP
	if s.udp {
		s.size = s.transport + udpSize
		return protocol, nil
	}
	if s.transport+tcpSize > len(pkt) {
		return 0, ErrMalformed
	}
	length := int(pkt[s.transport+12]>>4) * 4
	s.size = s.transport + length
	s.seq = binary.BigEndian.Uint32(pkt[s.transport+4:])
	if length < tcpSize {
		return 0, ErrMalformed
	}
	return protocol, nil
}

// Count returns how many segments there are.
func (s *Split) Count() int { return s.count }

// Size returns how many bytes the largest segment has.
func (s *Split) Size() int {
	if s.size == 0 {
		return len(s.pkt)
	}
	return min(s.size+s.segment, len(s.pkt))
}

// Next returns the next segment, or false after the last. The segment lies in the packet
// given to Reset and is good until the next call of Next. All but the last have equal size.
// The bytes behind it in the packet are payload that is still to come.
func (s *Split) Next() ([]byte, bool) {
	if s.next >= s.count {
		return nil, false
	}
	n := s.next
	s.next++
	if s.size == 0 {
		return s.pkt, true
	}
	from := s.size + n*s.segment
	to := min(from+s.segment, len(s.pkt))
	seg := s.pkt[from-s.size : to]
	copy(seg, s.header[:s.size])
	setLength(seg, s.transport, len(seg), s.id+uint16(n))
	if s.udp {
		s.finishUDP(seg)
	} else {
		s.finishTCP(seg, n)
	}
	return seg, true
}

// finishTCP writes the fields that differ between the segments of a TCP super-packet: RFC 9293
// for the fields, RFC 3168 section 6.1.2 for CWR, which only the first segment carries.
func (s *Split) finishTCP(seg []byte, n int) {
	t := seg[s.transport:]
	binary.BigEndian.PutUint32(t[4:], s.seq+uint32(n*s.segment))
	if n > 0 {
		t[13] &^= flagCWR
	}
	if n < s.count-1 {
		t[13] &^= flagFIN | flagPSH
	}
	binary.BigEndian.PutUint16(t[16:], 0)
	binary.BigEndian.PutUint16(t[16:], checksum(Sum(t, fold(uint64(s.pseudo)+uint64(len(t))))))
}

func (s *Split) finishUDP(seg []byte) {
	t := seg[s.transport:]
	binary.BigEndian.PutUint16(t[4:], uint16(len(t)))
	binary.BigEndian.PutUint16(t[6:], 0)
	binary.BigEndian.PutUint16(t[6:], checksum(Sum(t, fold(uint64(s.pseudo)+uint64(len(t))))))
}
