package wg

import (
	"slices"
	"sync/atomic"
)

// stage keeps the newest few packets of a peer that has no session yet. The zero value is
// empty; its owner locks.
type stage struct {
	packets [][]byte // virtio header first, as read from the TUN
	bytes   int
}

// budget is what all stages of a device may hold together, in bytes.
type budget struct{ used atomic.Int64 }

// add copies packet in and drops the oldest ones for it. It reports whether there was room.
func (s *stage) add(packet []byte, b *budget) bool {
	for len(s.packets) == maxStagedPackets || (len(s.packets) > 0 && s.bytes+len(packet) > maxStagedBytes) {
		s.drop(b)
	}
	if b.used.Add(int64(len(packet))) > maxStagedTotal {
		b.used.Add(-int64(len(packet)))
		return false
	}
	s.packets = append(s.packets, slices.Clone(packet))
	s.bytes += len(packet)
	return true
}

// drop removes the oldest packet.
func (s *stage) drop(b *budget) {
	n := len(s.packets[0])
	s.packets = s.packets[1:]
	s.bytes -= n
	b.used.Add(-int64(n))
}

// take removes and returns all packets, oldest first.
func (s *stage) take(b *budget) [][]byte {
	out := s.packets
	b.used.Add(-int64(s.bytes))
	s.packets, s.bytes = nil, 0
	return out
}
