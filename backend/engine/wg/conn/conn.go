// Package conn owns the UDP sockets of a WireGuard device: a pair on the same port, many
// datagrams per system call, trains of datagrams that the kernel cuts and joins (GSO, GRO), the
// local address of each datagram and its traffic class. It moves bytes: it knows neither peers
// nor the meaning of a datagram.
package conn

import "net/netip"

const (
	// BatchSize is the greatest number of trains that Send hands to the kernel in a system call.
	BatchSize = 64
	// ReadBatchSize is the greatest number of trains that a call of Receive fills in.
	ReadBatchSize = 8

	maxSegments    = 64              // datagrams of a train: UDP_MAX_SEGMENTS before Linux 6.9
	maxPayload     = 65535 - 8       // bytes of an IPv6 datagram or of a train
	maxPayloadIPv4 = maxPayload - 20 // the IPv4 header counts
)

// Incoming is a received datagram, or a train of several datagrams of a sender that the
// kernel joined. The caller of Receive provides Buf, Receive fills in the other fields.
type Incoming struct {
	Buf     []byte         // the whole buffer
	Size    int            // bytes of Buf that were received; 0: longer than any datagram of WireGuard
	Segment int            // bytes of each datagram but the last; Size for a single datagram
	From    netip.AddrPort // the sender
	Local   netip.Addr     // the address of this host that the datagram was sent to
	Device  uint32         // the index of the device that it arrived at; 0: unknown
	ECN     uint8          // the two congestion bits of the outer header
}

// Outgoing is a datagram, or a train of datagrams of equal size to one address: only the last
// datagram may be shorter. Send fills in Sent, NoRoom,
// SourceRefused and TrainRefused.
type Outgoing struct {
	To      netip.AddrPort
	Local   netip.Addr // the address to send from; the zero Addr leaves the choice to the routing table
	Pieces  [][]byte   // together the payload of the train
	Segment int        // bytes of each datagram but the last
	Size    int        // bytes in all
	Count   int        // datagrams
	Class   uint8      // the traffic class of the outer header: DSCP and the two congestion bits

	Sent int // bytes of the datagrams that the kernel took; the other datagrams were not sent

	// NoRoom reports that datagrams of the train were dropped because the socket's buffer was full:
	// Drops counts them.
	NoRoom bool

	// SourceRefused reports that the kernel refused to send from Local, and that the train was sent
	// again from an address of the kernel's choice: the caller should forget Local.
	SourceRefused bool

	// TrainRefused reports that the kernel refused the train and took its datagrams singly: they are
	// larger than the MTU of the path, and are fragmented. It is not reported again for a while.
	TrainRefused bool

	closed bool // the last datagram was shorter: no datagram may follow
}

// Start makes o a train of a single datagram. It keeps the memory of Pieces.
func (o *Outgoing) Start(to netip.AddrPort, local netip.Addr, datagram []byte, class uint8) {
	*o = Outgoing{
		To: to, Local: local, Pieces: append(o.Pieces[:0], datagram), Segment: len(datagram), Size: len(datagram), Count: 1, Class: class,
	}
}

// Append adds a datagram to the train and reports true, or reports false when the datagram does
// not fit: it is longer than the datagrams before it, a shorter datagram was the last, the class
// differs, or the train is full.
func (o *Outgoing) Append(datagram []byte, class uint8) bool {
	limit := maxPayload
	if o.To.Addr().Is4() {
		limit = maxPayloadIPv4
	}
	if o.closed || o.Class != class || len(datagram) > o.Segment || o.Count == maxSegments || o.Size+len(datagram) > limit {
		return false
	}
	last := o.Pieces[len(o.Pieces)-1]
	if cap(last)-len(last) >= len(datagram) && &last[:len(last)+1][len(last)] == &datagram[0] {
		o.Pieces[len(o.Pieces)-1] = last[:len(last)+len(datagram)] // right behind in memory: the two become a single piece
	} else {
		o.Pieces = append(o.Pieces, datagram)
	}
	o.Size += len(datagram)
	o.Count++
	o.closed = len(datagram) < o.Segment
	return true
}

// Pair is the two sockets of a device, on the same port. A socket is nil when the host lacks its
// address family.
type Pair struct {
	V4, V6 *Socket
	Port   uint16
}

// Close closes the sockets of the pair.
func (p Pair) Close() {
	for _, s := range []*Socket{p.V4, p.V6} {
		if s != nil {
			_ = s.Close() // a UDP socket buffers no writes
		}
	}
}
