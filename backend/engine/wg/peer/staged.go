package peer

import (
	"slices"
	"sync/atomic"
)

// staged keeps the newest packets of a peer that has no keypair yet. The zero value is empty; its
// owner locks.
type staged struct {
	packets [][]byte // virtio header first, as read from the TUN device
	bytes   int
}

// budget bounds the staged packets of all peers of a device, in bytes, and counts the packets
// that were dropped before they could be sent.
type budget struct {
	used     atomic.Int64
	overflow atomic.Uint64 // packets dropped for want of room
	expired  atomic.Uint64 // packets dropped because no keypair came in time, or the peer ended
	keyless  atomic.Uint64 // packets dropped because a key is missing or invalid: no handshake is possible
}

// add copies packet in and drops the oldest packets to make room. A packet that the budget does
// not allow is dropped.
func (s *staged) add(packet []byte, b *budget) {
	for len(s.packets) == maxStagedPackets || (len(s.packets) > 0 && s.bytes+len(packet) > maxStagedBytes) {
		s.drop(b)
	}
	if b.used.Add(int64(len(packet))) > maxStagedTotal {
		b.used.Add(-int64(len(packet)))
		b.overflow.Add(1)
		return
	}
	s.packets = append(s.packets, slices.Clone(packet))
	s.bytes += len(packet)
}

// drop removes the oldest packet, to make room.
func (s *staged) drop(b *budget) {
	b.overflow.Add(1)
	n := len(s.packets[0])
	s.packets = s.packets[1:]
	s.bytes -= n
	b.used.Add(-int64(n))
}

// take removes and returns all packets, oldest first.
func (s *staged) take(b *budget) [][]byte {
	out := s.packets
	b.used.Add(-int64(s.bytes))
	s.packets, s.bytes = nil, 0
	return out
}

// discard drops all packets.
func (s *staged) discard(b *budget) { b.expired.Add(uint64(len(s.take(b)))) }
