package wg

import (
	"math/rand/v2"
	"time"
)

// The timers of section 6 are one timer per peer in use. The data path only notes when
// something happened; the timer, when it fires, works out what is due and when it must look
// again.
//
//	what                        due at
//	retry a handshake           its last message + 5 s (and jitter), 18 times
//	keepalive                   data received, nothing sent since + 10 s
//	handshake for lost replies  data sent, nothing received since + 15 s
//	persistent keepalive        last message either way + interval
//	forget                      last session + 540 s

// noteSent records an authenticated message to the peer; data says it was no keepalive.
func (p *peer) noteSent(now moment, data bool) {
	p.sentAt.Store(int64(now))
	if p.owedSince.Load() != 0 {
		p.owedSince.Store(0)
	}
	if data && p.awaitSince.Load() == 0 {
		p.awaitSince.Store(int64(now))
		p.wakeBy(now, now+replyAfter)
	}
}

// noteReceived records an authenticated message from the peer.
func (p *peer) noteReceived(now moment, data bool) {
	p.gotAt.Store(int64(now))
	if p.awaitSince.Load() != 0 {
		p.awaitSince.Store(0)
	}
	if data && p.owedSince.Load() == 0 {
		p.owedSince.Store(int64(now))
		p.wakeBy(now, now+keepaliveTimeout)
	}
}

// wakeBy makes sure that the timer fires by t.
func (p *peer) wakeBy(now, t moment) {
	if at := moment(p.wakeAt.Load()); at != 0 && at <= t {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.schedule(now)
}

// ask makes a handshake begin soon, on the timer's goroutine. It never blocks for long.
func (p *peer) ask(now moment) {
	if !p.wantsKeys.Swap(true) {
		p.wakeBy(now, now)
	}
}

// schedule sets the timer to the next thing due. The caller holds p.mu.
func (p *peer) schedule(now moment) {
	if p.mute() || !p.device.running.Load() {
		return
	}
	// Zero first: what the data path notes from here on makes it wait for p.mu, and what
	// it noted before is seen by due.
	p.wakeAt.Store(0)
	next := p.due(now)
	p.wakeAt.Store(int64(next))
	switch {
	case next == 0 && p.timer != nil:
		p.timer.Stop()
	case next == 0:
	case p.timer == nil:
		p.timer = time.AfterFunc(max(0, next-now), p.tick)
	default:
		p.timer.Reset(max(0, next-now))
	}
}

// due returns the moment of the next thing to do, 0 for none. The caller holds p.mu.
func (p *peer) due(now moment) moment {
	next := moment(0)
	at := func(t moment) {
		if next == 0 || t < next {
			next = t
		}
	}
	if p.keepalive != 0 {
		at(p.lastTraffic() + p.keepalive)
	}
	c := p.talk
	if c == nil {
		if p.wantsKeys.Load() {
			at(now)
		}
		return next
	}
	switch {
	case c.initiator != nil:
		at(c.retryAt)
	case p.wantsKeys.Load() && c.begunAt != 0:
		at(max(now, c.begunAt+rekeyTimeout))
	case p.wantsKeys.Load():
		at(now)
	}
	if t := moment(p.owedSince.Load()); t != 0 {
		at(t + keepaliveTimeout)
	}
	if t := moment(p.awaitSince.Load()); t != 0 {
		at(t + replyAfter)
	}
	at(c.idleSince() + forgetAfter)
	return next
}

// lastTraffic is when the persistent keepalive's interval began. The caller holds p.mu.
func (p *peer) lastTraffic() moment {
	return max(p.persistAt, moment(p.sentAt.Load()), moment(p.gotAt.Load()))
}

// tick does what is due.
func (p *peer) tick() {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := p.device.now()
	p.wakeAt.Store(0)
	if p.mute() || !p.device.running.Load() {
		return
	}
	if p.keepalive != 0 && now >= p.lastTraffic()+p.keepalive {
		p.persistAt = now
		p.sayNothing(now)
	}
	if p.talk != nil {
		p.tickConversation(now)
	}
	p.tickHandshake(now)
	p.schedule(now)
}

// tickConversation looks at what only a conversation has. The caller holds p.mu.
func (p *peer) tickConversation(now moment) {
	c := p.talk
	if t := moment(p.owedSince.Load()); t != 0 && now >= t+keepaliveTimeout {
		p.owedSince.Store(0)
		p.sayNothing(now)
	}
	if t := moment(p.awaitSince.Load()); t != 0 && now >= t+replyAfter {
		p.awaitSince.Store(0)
		p.unstick()
		p.wantsKeys.Store(true)
	}
	if now >= c.idleSince()+forgetAfter && c.initiator == nil {
		p.forget()
	}
}

// tickHandshake begins, repeats or gives up a handshake. The caller holds p.mu.
func (p *peer) tickHandshake(now moment) {
	c := p.talk
	switch {
	case c != nil && c.initiator != nil && now >= c.retryAt:
		if c.attempts >= maxAttempts {
			p.giveUp()
			return
		}
		c.attempts++
		p.unstick()
		p.initiate(now)
	case p.wantsKeys.Load() && (c == nil || (c.initiator == nil && (c.begunAt == 0 || now >= c.begunAt+rekeyTimeout))):
		if c != nil {
			c.attempts = 0
		}
		p.initiate(now)
	}
}

// giveUp ends a handshake that nobody answered, or that there is nobody to ask for: section
// 6.4. Sessions live on until they are too old. The caller holds p.mu.
func (p *peer) giveUp() {
	c := p.talk
	p.wantsKeys.Store(false)
	if c == nil {
		return
	}
	p.abandon()
	c.attempts = 0
	c.stage.take(&p.device.staged)
	p.staged.Store(false)
	if c.current == nil && c.previous == nil && c.next == nil {
		p.forget()
	}
}

// sayNothing sends a keepalive, or begins a handshake, which ends with one. The caller
// holds p.mu.
func (p *peer) sayNothing(now moment) {
	s := p.current.Load()
	if s == nil || !s.usable(now) {
		p.wantsKeys.Store(true)
		return
	}
	p.sendKeepalive(s, now)
}

// randomJitter spreads retries.
func randomJitter() time.Duration { return rand.N(jitter) }
