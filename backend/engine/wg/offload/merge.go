package offload

import (
	"bytes"
	"encoding/binary"

	"golang.org/x/sys/unix"
)

const (
	maxEntries  = 128   // packets and super-packets held before they are written
	maxSegments = 64    // of a super-packet: UDP_MAX_SEGMENTS before Linux 6.9
	maxTotal    = 65535 // bytes of an IPv4 packet
	slotCount   = 256   // of the table from flow to entry; a power of two
)

// Merger joins wire-sized packets to super-packets: packets of the same TCP or UDP flow that follow
// each other without a gap, also with packets of other flows in between. It copies no payload.
// It joins the packets that the kernel's own receive offload would join, so that cutting a
// super-packet again gives the same packets; checksums are not verified, as kernel WireGuard does not: the
// packets have just been authenticated.
//
// Order within a flow is kept. Set Write before the first Add; it allocates nothing once
// its tables have grown.
type Merger struct {
	// Write takes a packet, as pieces: the virtio header first. The pieces are good
	// until it returns.
	Write func(pieces [][]byte)
	// KeepTCP and KeepUDP leave the packets of a protocol as they are: kernels before 6.2 take no
	// joined UDP.
	KeepTCP, KeepUDP bool
	// EqualOnly joins only packets of equal size: the last packet of a super-packet is no shorter.
	EqualOnly bool

	entries []entry
	slots   [slotCount]uint8 // entry number + 1; the newest of each flow
}

// entry is a packet to be written, alone or grown by further packets.
type entry struct {
	virtio [HeaderSize]byte
	pieces [][]byte // virtio header, first packet, payloads of the further packets
	parsed
	total  int    // bytes, headers included
	count  int    // packets
	closed bool   // no packet may follow
	idStep uint16 // by how much the IPv4 identification grows; known from the second packet
}

// parsed holds the properties of a packet that joining depends on. The zero value is a packet that stays
// alone.
type parsed struct {
	head      []byte // the first packet
	transport int    // offset of the transport header; 0: stays alone
	size      int    // of all headers
	payload   int    // bytes
	udp       bool
	known     bool // that it belongs to the flow of slot
	slot      uint8
}

// Add takes a packet without virtio header. It must stay unchanged until Flush.
func (m *Merger) Add(pkt []byte) {
	p := m.parse(pkt)
	if p.transport != 0 {
		if n := m.slots[p.slot]; n != 0 && (!m.EqualOnly || m.entries[n-1].payload == p.payload) && m.entries[n-1].join(p, pkt) {
			return
		}
	}
	if len(m.entries) == maxEntries {
		m.Flush()
	}
	m.push(p, pkt)
	switch { // no later packet of its flow may overtake it
	case p.transport != 0:
		m.slots[p.slot] = uint8(len(m.entries))
	case p.known:
		m.slots[p.slot] = 0
	default:
		clear(m.slots[:]) // it may belong to any flow
	}
}

// push begins an entry, with the memory of an old entry where possible.
func (m *Merger) push(p parsed, pkt []byte) {
	if len(m.entries) < cap(m.entries) {
		m.entries = m.entries[:len(m.entries)+1]
	} else {
		m.entries = append(m.entries, entry{})
	}
	e := &m.entries[len(m.entries)-1]
	e.parsed, e.total, e.count, e.closed, e.idStep = p, len(pkt), 1, false, 0
	e.pieces = append(e.pieces[:0], nil, pkt)
	e.closed = p.transport == 0 || (!p.udp && pkt[p.transport+13]&flagPSH != 0)
}

// Flush writes everything that Add took, oldest first.
func (m *Merger) Flush() {
	for i := range m.entries {
		e := &m.entries[i]
		e.finish()
		m.Write(e.pieces)
	}
	m.entries = m.entries[:0]
	clear(m.slots[:])
}

// parse finds out whether a packet may be joined at all.
func (m *Merger) parse(pkt []byte) parsed {
	p := parsed{head: pkt}
	protocol := uint8(0)
	at := 0
	switch {
	case len(pkt) < ipv4Size+udpSize:
		return parsed{}
	case pkt[0] == 0x45: // options are for the slow path
		at, protocol = ipv4Size, pkt[9]
		fragment := binary.BigEndian.Uint16(pkt[6:])
		if int(binary.BigEndian.Uint16(pkt[2:])) != len(pkt) || fragment&^0x4000 != 0 {
			return parsed{}
		}
	case pkt[0]>>4 == 6 && len(pkt) >= ipv6Size+udpSize:
		at, protocol = ipv6Size, pkt[6]
		if int(binary.BigEndian.Uint16(pkt[4:]))+ipv6Size != len(pkt) {
			return parsed{}
		}
	default:
		return parsed{}
	}
	switch protocol {
	case unix.IPPROTO_TCP, unix.IPPROTO_UDP:
		p.known, p.slot = true, flowSlot(pkt, at)
	default:
		return parsed{}
	}
	fits := protocol == unix.IPPROTO_TCP && !m.KeepTCP && p.tcp(pkt, at) || protocol == unix.IPPROTO_UDP && !m.KeepUDP && p.datagram(pkt, at)
	if p.payload = len(pkt) - p.size; fits && p.payload > 0 {
		p.transport = at
	}
	return p
}

// tcp accepts data segments without flags that mean something of their own.
func (p *parsed) tcp(pkt []byte, at int) bool {
	if len(pkt) < at+tcpSize {
		return false
	}
	length := int(pkt[at+12]>>4) * 4
	p.size = at + length
	const ece = 0x40
	flags := pkt[at+13]
	return length >= tcpSize && p.size <= len(pkt) && flags&flagACK != 0 && flags&^(flagACK|flagPSH|ece) == 0
}

// datagram accepts whole UDP datagrams that have a checksum.
func (p *parsed) datagram(pkt []byte, at int) bool {
	p.size, p.udp = at+udpSize, true
	return int(binary.BigEndian.Uint16(pkt[at+4:])) == len(pkt)-at && binary.BigEndian.Uint16(pkt[at+6:]) != 0
}

// flowSlot hashes addresses and ports. Two flows that share a slot cost joining, not order.
func flowSlot(pkt []byte, at int) uint8 {
	a := addresses(pkt)
	h := uint64(binary.NativeEndian.Uint32(pkt[at:]))
	for i := 0; i < len(a); i += 8 {
		h = (h ^ binary.NativeEndian.Uint64(a[i:])) * 0x9e3779b97f4a7c15 // 2^64 / golden ratio
		h ^= h >> 29
	}
	return uint8(h>>32) & (slotCount - 1)
}

// join appends pkt to e if it continues it.
func (e *entry) join(p parsed, pkt []byte) bool {
	switch {
	case e.closed, p.transport != e.transport, p.size != e.size, p.udp != e.udp,
		p.payload > e.payload, e.count == maxSegments, e.total+p.payload > maxTotal,
		!e.sameNetwork(pkt):
		return false
	case !p.udp && !e.sameTCP(pkt), p.udp && !e.sameUDP(pkt):
		return false
	}
	e.pieces = append(e.pieces, pkt[p.size:])
	e.total += p.payload
	e.count++
	e.closed = p.payload < e.payload
	if !p.udp && pkt[p.transport+13]&flagPSH != 0 {
		e.head[e.transport+13] |= flagPSH // cutting gives it to the last segment alone
		e.closed = true
	}
	return true
}

// sameNetwork compares the IP headers, lengths and IPv4 checksum aside.
func (e *entry) sameNetwork(pkt []byte) bool {
	if pkt[0]>>4 == 6 {
		return bytes.Equal(e.head[:4], pkt[:4]) && bytes.Equal(e.head[6:ipv6Size], pkt[6:ipv6Size])
	}
	if !bytes.Equal(e.head[:2], pkt[:2]) || !bytes.Equal(e.head[6:10], pkt[6:10]) ||
		!bytes.Equal(e.head[12:ipv4Size], pkt[12:ipv4Size]) {
		return false
	}
	grown := binary.BigEndian.Uint16(pkt[4:]) - binary.BigEndian.Uint16(e.head[4:])
	if e.count > 1 {
		return grown == e.idStep*uint16(e.count)
	}
	// With "don't fragment" the identification has no meaning (RFC 6864, section 4.1), and
	// systems that leave it constant are common. Without, cutting must restore it.
	e.idStep = grown
	return grown == 1 || (grown == 0 && pkt[6]&0x40 != 0)
}

// sameTCP compares ports, acknowledgment, window and options, and wants the next byte.
func (e *entry) sameTCP(pkt []byte) bool {
	a, b := e.head[e.transport:e.size], pkt[e.transport:e.size]
	want := binary.BigEndian.Uint32(a[4:]) + uint32(e.total-e.size)
	return bytes.Equal(a[:4], b[:4]) && binary.BigEndian.Uint32(b[4:]) == want &&
		bytes.Equal(a[8:13], b[8:13]) && a[13]|flagPSH == b[13]|flagPSH &&
		bytes.Equal(a[14:16], b[14:16]) && bytes.Equal(a[18:], b[18:])
}

func (e *entry) sameUDP(pkt []byte) bool {
	return bytes.Equal(e.head[e.transport:e.transport+4], pkt[e.transport:e.transport+4])
}

// finish writes the headers of the super-packet that e has become.
func (e *entry) finish() {
	e.pieces[0] = e.virtio[:]
	if e.count == 1 {
		Header{}.Encode(e.virtio[:])
		return
	}
	h := Header{NeedsChecksum: true, HeaderLen: uint16(e.size), SegmentSize: uint16(e.payload), ChecksumStart: uint16(e.transport)}
	protocol, length := uint8(unix.IPPROTO_TCP), e.total-e.transport
	switch {
	case e.udp:
		h.Type, h.ChecksumOffset, protocol = unix.VIRTIO_NET_HDR_GSO_UDP_L4, 6, unix.IPPROTO_UDP
		binary.BigEndian.PutUint16(e.head[e.transport+4:], uint16(length))
	case e.head[0]>>4 == 4:
		h.Type, h.ChecksumOffset = unix.VIRTIO_NET_HDR_GSO_TCPV4, 16
	default:
		h.Type, h.ChecksumOffset = unix.VIRTIO_NET_HDR_GSO_TCPV6, 16
	}
	h.Encode(e.virtio[:])
	setLength(e.head, e.transport, e.total, binary.BigEndian.Uint16(e.head[4:]))
	sum := pseudo(addresses(e.head), protocol, length)
	binary.BigEndian.PutUint16(e.head[e.transport+int(h.ChecksumOffset):], sum)
}
