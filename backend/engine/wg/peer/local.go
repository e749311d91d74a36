package peer

import (
	"crypto/rand"
	"fmt"
	"io"
	"sync/atomic"

	"github.com/loden-net/loden/backend/engine/wg/noise"
)

// Local is this side of the protocol: what all peers of a device share. The zero value has no
// private key. Its methods are safe for concurrent use.
type Local struct {
	// Random is the source of indices and of the jitter of retries; nil: crypto/rand. A test sets it
	// before the first use. Keys always come from crypto/rand.
	Random io.Reader

	self    atomic.Pointer[self] // nil: no private key
	indices indices
	budget  budget
	down    atomic.Bool
}

// self is the identity of this side, and the checker of messages to it.
type self struct {
	identity *noise.Identity
	checker  *noise.CookieChecker
}

// SetPrivateKey makes the private key this side's identity; the zero key leaves it without. The
// caller calls Zero of every peer afterwards: their keypairs were derived from the key before.
func (l *Local) SetPrivateKey(private noise.Key) error {
	if private.IsZero() {
		l.self.Store(nil)
		return nil
	}
	id, err := noise.NewIdentity(private)
	if err != nil {
		return fmt.Errorf("set private key: %w", err)
	}
	l.self.Store(&self{identity: id, checker: noise.NewCookieChecker(id.Public())})
	return nil
}

// Identity returns this side's identity, or nil without a private key.
func (l *Local) Identity() *noise.Identity {
	if s := l.self.Load(); s != nil {
		return s.identity
	}
	return nil
}

// SetDown says whether the interface is down: then no peer sends a datagram, and no timer runs.
// The caller calls Peer.Down or Peer.Up of every peer afterwards.
func (l *Local) SetDown(down bool) { l.down.Store(down) }

// Down reports whether the interface is down.
func (l *Local) Down() bool { return l.down.Load() }

// Keypair returns the keypair of messages with this index, or nil.
func (l *Local) Keypair(index uint32) *Keypair { return l.indices.lookup(index).keypair }

// IndexOwner returns the peer whose keypair or pending handshake has this index, or nil.
func (l *Local) IndexOwner(index uint32) *Peer { return l.indices.lookup(index).peer }

// Indices returns the number of indices in use: of keypairs and of pending handshakes.
func (l *Local) Indices() int { return l.indices.count() }

// StagedBytes returns the size of all staged packets, in bytes.
func (l *Local) StagedBytes() int { return int(l.budget.used.Load()) }

// StagedDrops are counts of packets that were dropped for want of a keypair.
type StagedDrops struct {
	Overflow uint64 // too many packets waited
	Expired  uint64 // no keypair came in time, or the peer or the interface ended
	Keyless  uint64 // the device has no private key, or the peer's public key is invalid
}

// StagedDrops returns the counts since the start.
func (l *Local) StagedDrops() StagedDrops {
	return StagedDrops{Overflow: l.budget.overflow.Load(), Expired: l.budget.expired.Load(), Keyless: l.budget.keyless.Load()}
}

// random returns the source of random bytes.
func (l *Local) random() io.Reader {
	if l.Random != nil {
		return l.Random
	}
	return rand.Reader
}
