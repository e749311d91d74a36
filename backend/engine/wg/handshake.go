package wg

import (
	"errors"

	"golang.zx2c4.com/wireguard/tai64n"

	"github.com/loden-net/loden/backend/engine/wg/noise"
)

var errNoKey = errors.New("the device has no private key")

// initiate sends the first message of a handshake. The caller holds p.mu.
func (p *peer) initiate(now moment) {
	if p.to.Load() == nil {
		p.giveUp() // nobody to ask; the next packet asks again
		return
	}
	c, err := p.open()
	if err != nil {
		p.giveUp()
		return
	}
	p.abandon()
	self := p.device.self.Load()
	remote := noise.Remote{Public: p.key, Shared: c.shared, Preshared: p.preshared}
	index := p.device.indices.draw(p)
	initiator, msg, err := self.identity.Initiate(remote, index, tai64n.Now())
	if err != nil {
		p.device.indices.remove(index)
		p.giveUp()
		return
	}
	c.initiator, c.begunAt, c.retryAt = initiator, now, now+rekeyTimeout+randomJitter()
	c.stamp.Sign(msg, now)
	p.transmit(msg)
	p.noteSent(now, false)
}

// readInitiation answers the first message of a handshake that a peer begins.
func (d *Device) readInitiation(m letter, now moment) {
	self := d.self.Load()
	r, err := self.identity.Receive(m.msg())
	if err != nil {
		d.counters.rejected.Add(1)
		return
	}
	p := d.peer(r.Remote())
	if p == nil {
		d.counters.rejected.Add(1)
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.mute() || !p.admit(self, r, now) {
		d.counters.rejected.Add(1)
		return
	}
	c, err := p.open()
	if err != nil {
		return
	}
	index := d.indices.draw(p)
	reply, keys, err := r.Respond(p.preshared, index)
	if err != nil {
		d.indices.remove(index)
		return
	}
	s := newSession(p, &keys, index, false, now)
	d.indices.grant(index, s)
	p.expect(s)
	p.roam(m.from, m.local)
	p.gotBytes.Add(uint64(len(m.msg())))
	p.noteReceived(now, false)
	c.stamp.Sign(reply, now)
	p.transmit(reply)
	p.noteSent(now, false)
	p.schedule(now)
}

// admit verifies an initiation, that it is newer than all before, and that they do not come
// too fast. It keeps no state of one that fails. The caller holds p.mu.
func (p *peer) admit(self *self, r *noise.Responder, now moment) bool {
	var shared noise.Key
	if p.talk != nil {
		shared = p.talk.shared
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

// readResponse completes a handshake that this side began, and returns the peer.
func (d *Device) readResponse(m letter, now moment) *peer {
	p := d.indices.lookup(noise.Receiver(m.msg())).peer
	if p == nil {
		d.counters.rejected.Add(1)
		return nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.talk == nil || p.talk.initiator == nil {
		d.counters.rejected.Add(1)
		return nil
	}
	c := p.talk
	index := c.initiator.Local()
	keys, err := c.initiator.Finish(m.msg())
	if err != nil {
		d.counters.rejected.Add(1)
		return nil
	}
	c.initiator = nil
	s := newSession(p, &keys, index, true, now)
	d.indices.grant(index, s)
	p.adopt(s)
	p.finished()
	p.roam(m.from, m.local)
	p.gotBytes.Add(uint64(len(m.msg())))
	p.noteReceived(now, false)
	if !p.staged.Load() {
		p.sendKeepalive(s, now) // the peer may not send before it has heard: section 5.4.5
	}
	p.schedule(now)
	return p
}

// readCookie keeps a cookie for the next attempt.
func (d *Device) readCookie(m letter, now moment) {
	p := d.indices.lookup(noise.Receiver(m.msg())).peer
	if p == nil {
		d.counters.rejected.Add(1)
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.talk == nil || p.talk.stamp.Accept(m.msg(), now) != nil {
		d.counters.rejected.Add(1)
	}
}

// sendKeepalive sends an empty message. The caller holds p.mu.
func (p *peer) sendKeepalive(s *session, now moment) {
	counter, ok := s.reserve(1)
	if !ok {
		return
	}
	p.transmit(s.seal(counter, nil))
	p.noteSentLocked(now)
}

// noteSentLocked is noteSent for a keepalive, under p.mu: it sets no timer.
func (p *peer) noteSentLocked(now moment) {
	p.sentAt.Store(int64(now))
	p.owedSince.Store(0)
}

// transmit sends one message that is not data.
func (p *peer) transmit(msg []byte) {
	to := p.to.Load()
	if to == nil {
		return
	}
	p.sentBytes.Add(uint64(len(msg)))
	if p.device.sendMessage(to, msg) {
		p.unstick()
	}
}
