package peer

import (
	"encoding/binary"
	"io"
	"sync"
)

// indices maps the 32-bit indices that this device hands out to keypairs and pending handshakes.
// The zero value is empty.
type indices struct {
	mu sync.RWMutex // guards m
	m  map[uint32]entry
}

// entry is a keypair, or the pending handshake of peer where keypair is nil.
type entry struct {
	peer    *Peer
	keypair *Keypair
}

// draw picks a free index at random and gives it to the pending handshake of p.
func (x *indices) draw(p *Peer, random io.Reader) uint32 {
	x.mu.Lock()
	defer x.mu.Unlock()
	for {
		var b [4]byte
		_, _ = random.Read(b[:]) // crypto/rand never fails
		n := binary.LittleEndian.Uint32(b[:])
		if _, taken := x.m[n]; !taken {
			x.put(n, entry{peer: p})
			return n
		}
	}
}

// grant turns index n into the index of a keypair.
func (x *indices) grant(n uint32, k *Keypair) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.put(n, entry{peer: k.peer, keypair: k})
}

// put sets an entry. The caller holds x.mu.
func (x *indices) put(n uint32, e entry) {
	if x.m == nil {
		x.m = map[uint32]entry{}
	}
	x.m[n] = e
}

func (x *indices) lookup(n uint32) entry {
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
