package peer

import (
	"encoding/binary"
	"time"
)

// The timers of section 6 are a single timer for each peer in use. The data path only notes that
// a message was sent or received; Tick works out what is due and when it must be called again.
//
//	what                        due at
//	retry a handshake           its last message + 5 s (and jitter), 18 times
//	keepalive                   data received, nothing sent since + 10 s
//	handshake for lost replies  data sent, nothing received since + 15 s
//	persistent keepalive        last message either way + interval
//	erase the keys              last handshake progress + 540 s

// content is the content of a message that was sent to the peer.
type content int

const (
	handshakeMessage content = iota
	keepalive
	data
)

// NoteSent records data of size bytes that was sent to the peer.
func (p *Peer) NoteSent(now Moment, size int) {
	p.sentBytes.Add(uint64(size))
	if by := p.applySendRules(now, data); by != 0 {
		p.wakeBy(now, by)
	}
}

// CountSent counts size bytes of a Datagram that the kernel took.
func (p *Peer) CountSent(size int) { p.sentBytes.Add(uint64(size)) }

// applySendRules applies the rules of section 6 to a message that was sent. Every send passes here,
// whatever its path: data of the data path, keepalives, handshake messages. It takes no lock, and
// returns the moment at which Tick must be called at the latest, or 0 for no new moment.
//
//	every message       restarts the persistent keepalive's interval, and is an answer     6.5
//	transport messages  ask for the next handshake when the current keypair is old         6.2
//	data                awaits an answer                                                   6.5
func (p *Peer) applySendRules(now Moment, c content) (by Moment) {
	p.sentAt.Store(int64(now))
	if p.owedSince.Load() != 0 {
		p.owedSince.Store(0)
	}
	if c == data && p.awaitSince.Load() == 0 {
		p.awaitSince.Store(int64(now))
		by = now + replyTimeout
	}
	if c != handshakeMessage {
		if k := p.current.Load(); k != nil && k.rekeyDue(now) && !p.wantHandshake.Swap(true) {
			by = now
		}
	}
	return by
}

// NoteReceived records authentic transport messages of size bytes in all that were received with
// k; data says that some of them were not keepalives. It asks for the next handshake when k is
// old: section 6.2.
func (p *Peer) NoteReceived(k *Keypair, now Moment, size int, data bool) {
	p.receivedBytes.Add(uint64(size))
	p.noteReceived(now)
	if data && p.owedSince.Load() == 0 {
		p.owedSince.Store(int64(now))
		p.wakeBy(now, now+keepaliveTimeout)
	}
	if k.initiator && now-k.created >= rekeyOnReceive && !k.renewing.Swap(true) {
		p.RequestHandshake(now)
	}
}

// noteReceived records an authenticated message from the peer.
func (p *Peer) noteReceived(now Moment) {
	p.receivedAt.Store(int64(now))
	if p.awaitSince.Load() != 0 {
		p.awaitSince.Store(0)
	}
}

// wakeBy makes sure that the alarm is set to t or earlier.
func (p *Peer) wakeBy(now, t Moment) {
	if at := Moment(p.deadline.Load()); at != 0 && at <= t {
		return
	}
	p.Schedule(now)
}

// RequestHandshake makes a handshake begin at the next Tick, which is due at once.
func (p *Peer) RequestHandshake(now Moment) {
	if !p.wantHandshake.Swap(true) {
		p.wakeBy(now, now)
	}
}

// Deadline returns the moment at which Tick is to be called, or 0 for never.
func (p *Peer) Deadline() Moment { return Moment(p.deadline.Load()) }

// Schedule sets the alarm to the next thing due.
func (p *Peer) Schedule(now Moment) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.schedule(now)
}

// schedule is Schedule. The caller holds p.mu.
func (p *Peer) schedule(now Moment) {
	if p.disabled() {
		return
	}
	// Zero first: a message that the data path notes from here on makes it wait for p.mu, and a
	// message that it noted before is seen by due.
	p.deadline.Store(0)
	p.setAlarm(p.due(now))
}

// setAlarm sets the alarm. The caller holds p.mu.
func (p *Peer) setAlarm(at Moment) {
	p.deadline.Store(int64(at))
	if p.alarm != nil {
		p.alarm.SetAlarm(at)
	}
}

// due returns the moment of the next thing to do, 0 for never. The caller holds p.mu.
func (p *Peer) due(now Moment) Moment {
	next := Moment(0)
	at := func(t Moment) {
		if next == 0 || t < next {
			next = t
		}
	}
	switch {
	case p.keepaliveDue:
		at(now)
	case p.keepalive != 0:
		at(p.lastTraffic() + p.keepalive)
	}
	a := p.active
	if a == nil {
		if p.wantHandshake.Load() {
			at(now)
		}
		return next
	}
	switch {
	case a.initiator != nil:
		at(a.retryAt)
	case p.wantHandshake.Load() && a.begunAt != 0:
		at(max(now, a.begunAt+rekeyTimeout))
	case p.wantHandshake.Load():
		at(now)
	}
	if t := Moment(p.owedSince.Load()); t != 0 {
		at(t + keepaliveTimeout)
	}
	if t := Moment(p.awaitSince.Load()); t != 0 {
		at(t + replyTimeout)
	}
	at(a.lastProgress() + zeroKeysAfter)
	return next
}

// lastTraffic is when the persistent keepalive's interval began. The caller holds p.mu.
func (p *Peer) lastTraffic() Moment {
	return max(p.persistAt, Moment(p.sentAt.Load()), Moment(p.receivedAt.Load()))
}

// Tick does what is due.
func (p *Peer) Tick(t Time) Actions {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.deadline.Store(0)
	if p.disabled() {
		return Actions{}
	}
	if p.keepaliveDue || (p.keepalive != 0 && t.Now >= p.lastTraffic()+p.keepalive) {
		p.keepaliveDue, p.persistAt = false, t.Now
		p.sendKeepalive(t.Now)
	}
	if p.active != nil {
		p.tickActive(t.Now)
	}
	p.tickHandshake(t)
	p.schedule(t.Now)
	return p.actions()
}

// tickActive looks at the timers of a peer in use. The caller holds p.mu.
func (p *Peer) tickActive(now Moment) {
	a := p.active
	if t := Moment(p.owedSince.Load()); t != 0 && now >= t+keepaliveTimeout {
		p.owedSince.Store(0)
		p.sendKeepalive(now)
	}
	if t := Moment(p.awaitSince.Load()); t != 0 && now >= t+replyTimeout {
		p.awaitSince.Store(0)
		p.ClearSource()
		p.wantHandshake.Store(true)
	}
	if now >= a.lastProgress()+zeroKeysAfter && a.initiator == nil {
		p.zero()
	}
}

// tickHandshake begins, repeats or gives up a handshake. The caller holds p.mu.
func (p *Peer) tickHandshake(t Time) {
	a := p.active
	switch {
	case a != nil && a.initiator != nil && t.Now >= a.retryAt:
		if a.attempts >= maxAttempts {
			p.giveUp()
			return
		}
		a.attempts++
		p.ClearSource()
		p.initiate(t)
	case p.wantHandshake.Load() && (a == nil || (a.initiator == nil && (a.begunAt == 0 || t.Now >= a.begunAt+rekeyTimeout))):
		if a != nil {
			a.attempts = 0
		}
		p.initiate(t)
	}
}

// giveUp ends a handshake that was not answered, or that has no address to go to: section 6.4.
// Keypairs live on until they are too old. The caller holds p.mu.
func (p *Peer) giveUp() {
	a := p.active
	p.wantHandshake.Store(false)
	if a == nil {
		return
	}
	p.dropHandshake()
	a.attempts = 0
	a.staged.discard(&p.local.budget)
	p.hasStaged.Store(false)
	if a.current == nil && a.previous == nil && a.next == nil {
		p.zero()
	}
}

// sendKeepalive sends an empty message, or asks for a handshake, which ends with an empty message.
// The caller holds p.mu.
func (p *Peer) sendKeepalive(now Moment) {
	k := p.current.Load()
	if k == nil || !k.Usable(now) {
		p.wantHandshake.Store(true)
		return
	}
	p.keepaliveWith(k, now)
}

// Announce sends a keepalive if there is a keypair to send it with: this side has another address, which
// the peer learns from an authentic message.
func (p *Peer) Announce(now Moment) Actions {
	p.mu.Lock()
	defer p.mu.Unlock()
	if k := p.current.Load(); k != nil && k.Usable(now) && !p.disabled() {
		p.keepaliveWith(k, now)
		p.schedule(now)
	}
	return p.actions()
}

// jitter returns a random delay that spreads retries.
func (l *Local) jitter() time.Duration {
	var b [8]byte
	_, _ = l.random().Read(b[:]) // crypto/rand never fails
	return time.Duration(binary.LittleEndian.Uint64(b[:]) % uint64(maxJitter))
}
