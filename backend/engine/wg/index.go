package wg

import (
	"crypto/rand"
	"encoding/binary"
	"sync"
)

// indices maps the 32-bit numbers that this device hands out to what they stand for. The
// zero value is empty.
type indices struct {
	mu sync.RWMutex // guards m
	m  map[uint32]indexed
}

// indexed is a session, or the pending handshake of peer where session is nil.
type indexed struct {
	peer    *peer
	session *session
}

// draw picks a free random number and gives it to the pending handshake of p.
func (x *indices) draw(p *peer) uint32 {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.m == nil {
		x.m = map[uint32]indexed{}
	}
	for {
		var b [4]byte
		rand.Read(b[:])
		n := binary.LittleEndian.Uint32(b[:])
		if _, taken := x.m[n]; !taken {
			x.m[n] = indexed{peer: p}
			return n
		}
	}
}

// grant turns number n into that of a session.
func (x *indices) grant(n uint32, s *session) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.m == nil {
		x.m = map[uint32]indexed{}
	}
	x.m[n] = indexed{peer: s.peer, session: s}
}

func (x *indices) lookup(n uint32) indexed {
	x.mu.RLock()
	defer x.mu.RUnlock()
	return x.m[n]
}

func (x *indices) remove(n uint32) {
	x.mu.Lock()
	defer x.mu.Unlock()
	delete(x.m, n)
}

func (x *indices) count() int {
	x.mu.RLock()
	defer x.mu.RUnlock()
	return len(x.m)
}
