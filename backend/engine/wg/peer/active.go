package peer

import (
	"errors"

	"github.com/loden-net/loden/backend/engine/wg/noise"
)

var errNoKey = errors.New("the device has no private key")

// active is the state of a peer in use: handshake, keypairs and staged packets.
type active struct {
	shared    noise.Key // Diffie-Hellman of the two static keys
	stamp     *noise.Stamp
	initiator *noise.Initiator // nil: this side has no handshake under way
	begunAt   Moment           // when the last initiation was sent; 0: never
	retryAt   Moment
	attempts  int
	openedAt  Moment
	derivedAt Moment // when the last keypair was derived; 0: never

	current, previous, next *Keypair
	staged                  staged
}

// lastProgress is when the handshake last made progress.
func (a *active) lastProgress() Moment { return max(a.openedAt, a.begunAt, a.derivedAt) }

// activate returns the state of a peer in use, and creates it for an idle peer. The caller holds
// p.mu.
func (p *Peer) activate(now Moment) (*active, error) {
	if p.active != nil {
		return p.active, nil
	}
	self := p.local.self.Load()
	if self == nil {
		return nil, errNoKey
	}
	shared, err := self.identity.Shared(p.key)
	if err != nil {
		return nil, err
	}
	stamp := p.cookie
	if p.cookie = nil; stamp == nil || !stamp.Fresh(now) {
		stamp = noise.NewStamp(p.key)
	}
	p.active = &active{shared: shared, stamp: stamp, openedAt: now}
	return p.active, nil
}

// zero makes the peer idle: it erases keypairs, handshake and staged packets. The caller holds
// p.mu.
func (p *Peer) zero() {
	a := p.active
	if a == nil {
		return
	}
	p.dropHandshake()
	for _, k := range []*Keypair{a.current, a.previous, a.next} {
		p.retire(k)
	}
	p.current.Store(nil)
	a.staged.discard(&p.local.budget)
	p.hasStaged.Store(false)
	a.shared.Wipe()
	if a.stamp.HasCookie() {
		p.cookie = a.stamp
	}
	p.owedSince.Store(0)
	p.awaitSince.Store(0)
	p.active = nil
}

// dropHandshake gives up a pending handshake of this side. The caller holds p.mu.
func (p *Peer) dropHandshake() {
	if i := p.active.initiator; i != nil {
		p.local.indices.remove(i.Local())
		i.Wipe()
		p.active.initiator = nil
	}
}

// handshakeSoon makes the next handshake due as soon as the peer accepts another initiation,
// instead of 5 s after the last. The caller holds p.mu and schedules.
func (p *Peer) handshakeSoon(now Moment) {
	a := p.active
	if a.begunAt != 0 {
		a.begunAt += 2*initiationInterval - rekeyTimeout
	}
	a.attempts, a.openedAt = 0, now // and the handshake counts as progress: see Tick
}

// retire ends a keypair, if there is a keypair. The caller holds p.mu.
func (p *Peer) retire(k *Keypair) {
	if k != nil {
		k.closed.Store(true)
		k.keys.Wipe()
		p.local.indices.remove(k.local)
	}
}

// adopt makes k, the result of this side's handshake, the current keypair. The caller holds p.mu.
//
//	         previous   current   next
//	before      a          b        –        before     a     b     c
//	after       b          k        –        after      c     k     –
func (p *Peer) adopt(k *Keypair) {
	a := p.active
	p.retire(a.previous)
	if a.next != nil {
		p.retire(a.current)
		a.previous, a.next = a.next, nil
	} else {
		a.previous = a.current
	}
	a.current = k
	p.current.Store(k)
	a.derivedAt = k.created
}

// expect makes k, the result of the peer's handshake, the next keypair: this side sends with it
// only once the peer has proved that it has the keys too. The caller holds p.mu.
func (p *Peer) expect(k *Keypair) {
	a := p.active
	p.retire(a.next)
	p.retire(a.previous)
	a.next, a.previous = k, nil
	a.derivedAt = k.created
}

// Confirm makes a next keypair the current keypair: its first message has arrived. With
// Actions.Flush there are staged packets that it can send.
func (p *Peer) Confirm(k *Keypair, t Time) Actions {
	p.mu.Lock()
	defer p.mu.Unlock()
	if a := p.active; a != nil && a.next == k {
		p.retire(a.previous)
		a.previous, a.current, a.next = a.current, k, nil
		p.current.Store(k)
		p.finish(t)
	}
	return Actions{Flush: p.hasStaged.Load()}
}

// finish notes that a handshake is complete. A pending handshake of this side in the other
// direction is no longer needed. The caller holds p.mu.
func (p *Peer) finish(t Time) {
	p.dropHandshake()
	p.active.attempts = 0
	p.wantHandshake.Store(false)
	p.finishedAt = t.Wall
}
