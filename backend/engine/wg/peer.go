package wg

import (
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"golang.zx2c4.com/wireguard/tai64n"

	"github.com/loden-net/loden/backend/engine/wg/noise"
)

// peer is one configured peer. What it needs only while it talks is in conversation.
type peer struct {
	device *Device
	key    noise.Key

	// Read and written by the data path, without a lock.
	to         atomic.Pointer[endpoint] // nil: unknown
	current    atomic.Pointer[session]  // the one to send with; nil: none
	staged     atomic.Bool              // conversation.stage is not empty, or still being sent
	sentBytes  atomic.Uint64
	gotBytes   atomic.Uint64
	sentAt     atomic.Int64 // moment of the last authenticated message sent
	gotAt      atomic.Int64 // and received
	owedSince  atomic.Int64 // data received and nothing sent since; 0: nothing owed
	awaitSince atomic.Int64 // data sent and nothing received since; 0: nothing awaited
	wantsKeys  atomic.Bool  // a handshake should begin
	wakeAt     atomic.Int64 // moment the timer is set to; 0: not set

	unstaging sync.Mutex // held by a sender that sends what was staged; p.mu may be taken after it

	allowed []netip.Prefix // guarded by Device.mu

	mu         sync.Mutex // guards what follows
	preshared  noise.Key
	keepalive  time.Duration    // persistent keepalive interval; 0: none
	newest     tai64n.Timestamp // of the initiations taken; kept as long as the peer is: section 5.1
	readAt     moment           // when the last initiation was taken
	finishedAt time.Time        // of the last handshake, on the wall clock
	talk       *conversation    // nil: idle
	timer      *time.Timer      // nil: never needed yet
	persistAt  moment           // when the last persistent keepalive was tried
	removed    bool
}

// conversation is the state of a peer in use.
type conversation struct {
	shared    noise.Key // Diffie-Hellman of the two static keys
	stamp     *noise.Stamp
	initiator *noise.Initiator // nil: no handshake of ours is under way
	begunAt   moment           // when its last message was sent; 0: never
	retryAt   moment
	attempts  int
	openedAt  moment
	derivedAt moment // when the last session came about; 0: never

	current, previous, next *session
	stage                   stage
}

// open returns the conversation and begins one if there is none. The caller holds p.mu.
func (p *peer) open() (*conversation, error) {
	if p.talk != nil {
		return p.talk, nil
	}
	self := p.device.self.Load()
	if self == nil {
		return nil, errNoKey
	}
	shared, err := self.identity.Shared(p.key)
	if err != nil {
		return nil, err
	}
	p.talk = &conversation{shared: shared, stamp: noise.NewStamp(p.key), openedAt: p.device.now()}
	return p.talk, nil
}

// forget ends the conversation: keys, handshake and staged packets. The caller holds p.mu.
func (p *peer) forget() {
	c := p.talk
	if c == nil {
		return
	}
	p.abandon()
	for _, s := range []*session{c.current, c.previous, c.next} {
		p.retire(s)
	}
	p.current.Store(nil)
	c.stage.take(&p.device.staged)
	p.staged.Store(false)
	c.shared.Wipe()
	p.owedSince.Store(0)
	p.awaitSince.Store(0)
	p.talk = nil
}

// abandon gives up a pending handshake. The caller holds p.mu.
func (p *peer) abandon() {
	if i := p.talk.initiator; i != nil {
		p.device.indices.remove(i.Local())
		i.Wipe()
		p.talk.initiator = nil
	}
}

// retire ends a session, if there is one. The caller holds p.mu.
func (p *peer) retire(s *session) {
	if s != nil {
		s.closed.Store(true)
		s.keys.Wipe()
		p.device.indices.remove(s.local)
	}
}

// adopt takes a session that a handshake of ours brought about. The caller holds p.mu.
//
//	         previous   current   next
//	before      a          b        –        before     a     b     c
//	after       b          s        –        after      c     s     –
func (p *peer) adopt(s *session) {
	c := p.talk
	p.retire(c.previous)
	if c.next != nil {
		p.retire(c.current)
		c.previous, c.next = c.next, nil
	} else {
		c.previous = c.current
	}
	c.current = s
	p.current.Store(s)
	c.derivedAt = s.created
}

// expect takes a session that answers a handshake of the peer: it is used for sending only
// once the peer has proved that it has the keys. The caller holds p.mu.
func (p *peer) expect(s *session) {
	c := p.talk
	p.retire(c.next)
	p.retire(c.previous)
	c.next, c.previous = s, nil
	c.derivedAt = s.created
}

// idleSince is when the conversation last got anywhere.
func (c *conversation) idleSince() moment { return max(c.openedAt, c.begunAt, c.derivedAt) }

// confirm makes an expected session the current one: its first message has arrived.
func (p *peer) confirm(s *session) {
	p.mu.Lock()
	defer p.mu.Unlock()
	c := p.talk
	if c == nil || c.next != s {
		return
	}
	p.retire(c.previous)
	c.previous, c.current, c.next = c.current, s, nil
	p.current.Store(s)
	p.finished()
}

// finished notes that a handshake is complete; one of ours the other way round is not
// needed any more. The caller holds p.mu.
func (p *peer) finished() {
	p.abandon()
	p.talk.attempts = 0
	p.wantsKeys.Store(false)
	p.finishedAt = time.Now()
}

// keep stages a packet until there is a session, and asks for one.
func (p *peer) keep(packet []byte) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.mute() {
		return
	}
	c, err := p.open()
	if err != nil {
		return // no private key yet, or a peer key that is no key: nothing can be sent
	}
	c.stage.add(packet, &p.device.staged)
	p.staged.Store(len(c.stage.packets) > 0)
	now := p.device.now()
	if s := p.current.Load(); s != nil && s.usable(now) { // it came while the caller looked
		p.device.post(letter{peer: p})
		return
	}
	p.wantsKeys.Store(true)
	p.schedule(now)
}

// kept returns what was staged. The caller holds p.unstaging, sends it and calls unstaged.
func (p *peer) kept() [][]byte {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.talk == nil {
		return nil
	}
	return p.talk.stage.take(&p.device.staged)
}

// unstaged notes that what kept returned has been sent.
func (p *peer) unstaged() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.staged.Store(p.talk != nil && len(p.talk.stage.packets) > 0)
}

// roam remembers where an authentic message came from: section 2.1.
func (p *peer) roam(from netip.AddrPort, local source) {
	to := p.to.Load()
	if to == nil || to.remote != from || to.local != local {
		p.to.Store(&endpoint{remote: from, local: local})
	}
}

// unstick forgets the local side of the endpoint: the address may have left the machine.
func (p *peer) unstick() {
	if to := p.to.Load(); to != nil && to.local != (source{}) {
		p.to.CompareAndSwap(to, &endpoint{remote: to.remote})
	}
}

// remove ends everything of a peer that is no longer configured.
func (p *peer) remove() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.removed = true
	p.forget()
	p.preshared.Wipe()
	if p.timer != nil {
		p.timer.Stop()
	}
}
