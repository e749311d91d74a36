package peer

import (
	"encoding/binary"
	"net/netip"

	"golang.zx2c4.com/wireguard/tai64n"

	"github.com/loden-net/loden/backend/engine/wg/noise"
)

// Inbound is a handshake message or a cookie from outside: noise.Well holds for it.
type Inbound struct {
	Message []byte
	From    Endpoint // Remote is the sender, Local the address that the message arrived at

	// Loaded demands a cookie before any work is done: section 5.3. Allow then limits the messages
	// of senders that have proved their address.
	Loaded bool
	Allow  func(netip.Addr) bool

	// Find returns the configured peer with a key, or nil.
	Find func(noise.Key) *Peer
}

// Verdict is the result of Local.Receive.
type Verdict int

const (
	Accepted   Verdict = iota // the message was right, and was acted on
	Rejected                  // the message was forged, replayed, unknown, too fast, or out of turn
	CookieSent                // the device is loaded, and the sender has to prove its address first
)

// Receive acts on a handshake message. It returns the peer that the message is from, if it was
// accepted, and the actions for it.
func (l *Local) Receive(in Inbound, t Time) (*Peer, Actions, Verdict) {
	self := l.self.Load()
	if self == nil {
		return nil, Actions{}, Rejected
	}
	msg := in.Message
	if msg[0] == noise.TypeCookie {
		return l.receiveCookie(in, t.Now)
	}
	if !self.checker.MAC1(msg) {
		return nil, Actions{}, Rejected
	}
	if in.Loaded {
		if !self.checker.MAC2(msg, in.From.Remote, t.Now) {
			from := in.From
			reply := Datagram{To: &from, Message: self.checker.Reply(msg, from.Remote, t.Now)}
			return nil, Actions{Datagrams: []Datagram{reply}}, CookieSent
		}
		if !in.Allow(in.From.Remote.Addr()) {
			return nil, Actions{}, Rejected
		}
	}
	if msg[0] == noise.TypeInitiation {
		return l.receiveInitiation(self, in, t.Now)
	}
	return l.receiveResponse(in, t)
}

// initiate sends the first message of a handshake. The caller holds p.mu.
func (p *Peer) initiate(t Time) {
	if p.endpoint.Load() == nil {
		p.giveUp() // there is no address to send to; the next packet tries again
		return
	}
	a, err := p.activate(t.Now)
	if err != nil {
		p.giveUp()
		return
	}
	p.dropHandshake()
	self := p.local.self.Load()
	if self == nil {
		p.giveUp()
		return
	}
	remote := noise.Remote{Public: p.key, Shared: a.shared, Preshared: p.preshared}
	index := p.local.indices.draw(p, p.local.random())
	initiator, msg, err := self.identity.Initiate(remote, index, timestamp(t))
	if err != nil {
		p.local.indices.remove(index)
		p.giveUp()
		return
	}
	a.initiator, a.begunAt, a.retryAt = initiator, t.Now, t.Now+rekeyTimeout+p.local.jitter()
	a.stamp.Sign(msg, t.Now)
	p.send(msg)
	p.applySendRules(t.Now, handshakeMessage)
}

// timestamp returns the TAI64N form of the wall clock: section 5.4.2. As in tai64n.Now, which
// reads a clock, the low 24 bits are zero so that they tell nobody the state of this host's clock.
func timestamp(t Time) (out tai64n.Timestamp) {
	const epoch, coarse = 0x400000000000000a, 1<<24 - 1 // 10 leap seconds in 1970
	binary.BigEndian.PutUint64(out[:], epoch+uint64(t.Wall.Unix()))
	binary.BigEndian.PutUint32(out[8:], uint32(t.Wall.Nanosecond())&^coarse)
	return out
}

// receiveInitiation answers the first message of a handshake that a peer begins.
func (l *Local) receiveInitiation(self *self, in Inbound, now Moment) (*Peer, Actions, Verdict) {
	r, err := self.identity.Receive(in.Message)
	if err != nil {
		return nil, Actions{}, Rejected
	}
	p := in.Find(r.Remote())
	if p == nil {
		return nil, Actions{}, Rejected
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.disabled() || !p.admit(self, r, now) {
		return nil, Actions{}, Rejected
	}
	a, err := p.activate(now)
	if err != nil {
		return nil, Actions{}, Rejected
	}
	index := l.indices.draw(p, l.random())
	reply, keys, err := r.Respond(p.preshared, index)
	if err != nil {
		l.indices.remove(index)
		return nil, Actions{}, Rejected
	}
	k := newKeypair(p, &keys, index, false, now)
	l.indices.grant(index, k)
	p.expect(k)
	// The endpoint stays until the first transport message with k: an initiation may be a replay that
	// this process cannot know, and a response and data are bound to keys of this process.
	from := in.From
	if p.endpoint.Load() == nil {
		p.endpoint.Store(&from)
	}
	p.receivedBytes.Add(uint64(len(in.Message)))
	p.noteReceived(now)
	a.stamp.Sign(reply, now)
	p.sendTo(&from, reply)
	p.applySendRules(now, handshakeMessage)
	p.schedule(now)
	return p, p.actions(), Accepted
}

// admit verifies an initiation, that it is newer than all initiations before, and that they do
// not come too fast. It keeps no state of an initiation that fails. The caller holds p.mu.
func (p *Peer) admit(self *self, r *noise.Responder, now Moment) bool {
	var shared noise.Key
	if p.active != nil {
		shared = p.active.shared
	} else {
		var err error
		if shared, err = self.identity.Shared(p.key); err != nil {
			return false
		}
	}
	stamp, err := r.Verify(shared)
	shared.Wipe()
	if err != nil || !stamp.After(p.newest) || (p.readAt != 0 && now-p.readAt < initiationInterval) {
		return false
	}
	p.newest, p.readAt = stamp, now
	return true
}

// receiveResponse completes a handshake that this side began.
func (l *Local) receiveResponse(in Inbound, t Time) (*Peer, Actions, Verdict) {
	p := l.indices.lookup(noise.Receiver(in.Message)).peer
	if p == nil {
		return nil, Actions{}, Rejected
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	a := p.active
	if a == nil || a.initiator == nil {
		return nil, Actions{}, Rejected
	}
	index := a.initiator.Local()
	keys, err := a.initiator.Finish(in.Message)
	if err != nil {
		return nil, Actions{}, Rejected
	}
	a.initiator = nil
	k := newKeypair(p, &keys, index, true, t.Now)
	l.indices.grant(index, k)
	p.adopt(k)
	p.finish(t)
	p.SetEndpointFromPacket(in.From.Remote, in.From.Local, in.From.Device)
	p.receivedBytes.Add(uint64(len(in.Message)))
	p.noteReceived(t.Now)
	flush := p.hasStaged.Load()
	if !flush {
		p.keepaliveWith(k, t.Now) // the peer may not send before it has heard with k: section 5.4.5
	}
	p.schedule(t.Now)
	actions := p.actions()
	actions.Flush = flush
	return p, actions, Accepted
}

// receiveCookie keeps a cookie for the next initiation.
func (l *Local) receiveCookie(in Inbound, now Moment) (*Peer, Actions, Verdict) {
	p := l.indices.lookup(noise.Receiver(in.Message)).peer
	if p == nil {
		return nil, Actions{}, Rejected
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.active == nil || p.active.stamp.Accept(in.Message, now) != nil {
		return nil, Actions{}, Rejected
	}
	return p, Actions{}, Accepted
}

// keepaliveWith sends an empty message. The caller holds p.mu.
func (p *Peer) keepaliveWith(k *Keypair, now Moment) {
	counter, ok := k.Reserve(1)
	if !ok {
		return
	}
	p.send(k.message(counter, nil))
	p.applySendRules(now, keepalive) // every caller schedules
}
