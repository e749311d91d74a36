package wg

import (
	"errors"
	"fmt"
	"time"

	"github.com/loden-net/loden/backend/engine/wg/noise"
	"github.com/loden-net/loden/backend/engine/wg/state"
	"github.com/loden-net/loden/config/opt"
)

// restore makes a new device what another one was when it left.
func (d *Device) restore(s *state.Device) error {
	d.born = time.Now().Add(-s.Now) // moments stay what they are
	want := &request{port: opt.Some(s.Port), mark: opt.Some(s.Mark)}
	if !s.Private.IsZero() {
		want.private = opt.Some(s.Private)
	}
	defer want.wipe()
	for i := range s.Peers {
		p := &s.Peers[i]
		r := peerRequest{key: p.Public, preshared: opt.Some(p.Preshared), endpoint: p.Endpoint, keepalive: opt.Some(p.Keepalive)}
		for _, prefix := range p.Allowed {
			r.allowed = append(r.allowed, allowedRequest{prefix: prefix})
		}
		want.peers = append(want.peers, r)
	}
	if err := d.apply(want); err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	for i := range s.Peers {
		p := d.peers[s.Peers[i].Public]
		if p == nil {
			return errors.New("a device that is its own peer")
		}
		if err := p.restore(&s.Peers[i]); err != nil {
			return err
		}
	}
	return nil
}

// restore fills in what UAPI cannot say.
func (p *peer) restore(s *state.Peer) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if remote, ok := s.Endpoint.Get(); ok {
		p.to.Store(&endpoint{remote: remote, local: s.Local})
	}
	p.sentBytes.Store(s.Sent)
	p.gotBytes.Store(s.Received)
	p.newest, p.readAt, p.persistAt = s.Newest, s.ReadAt, s.PersistAt
	p.sentAt.Store(int64(s.SentAt))
	p.gotAt.Store(int64(s.GotAt))
	p.owedSince.Store(int64(s.OwedSince))
	p.awaitSince.Store(int64(s.AwaitSince))
	p.wantsKeys.Store(s.WantsKeys)
	if s.Finished != 0 {
		p.finishedAt = time.Unix(0, s.Finished)
	}
	if t, ok := s.Talk.Get(); ok {
		return p.restoreTalk(t, s.WantsKeys)
	}
	return nil
}

// restoreTalk goes on with a conversation. The caller holds p.mu.
func (p *peer) restoreTalk(t state.Talk, wantsKeys bool) error {
	c := &conversation{
		shared: t.Shared, stamp: noise.NewStamp(p.key), begunAt: t.BegunAt, openedAt: t.OpenedAt, derivedAt: t.DerivedAt,
	}
	p.talk = c
	if wantsKeys && c.begunAt != 0 {
		// The handshake under way stayed behind. Another is due not in 5 s but as soon as
		// the peer reads one again.
		c.begunAt += 2*initiationInterval - rekeyTimeout
	}
	for _, packet := range t.Staged {
		c.stage.add(packet, &p.device.staged)
	}
	p.staged.Store(len(c.stage.packets) > 0)
	for _, x := range []struct {
		from opt.Option[state.Session]
		to   **session
	}{{t.Current, &c.current}, {t.Previous, &c.previous}, {t.Next, &c.next}} {
		s, ok := x.from.Get()
		if !ok {
			continue
		}
		if p.device.indices.lookup(s.Local).peer != nil {
			return fmt.Errorf("two sessions with index %d", s.Local)
		}
		*x.to = p.restoreSession(s)
	}
	p.current.Store(c.current)
	return nil
}

// restoreSession goes on with a session: with the next counter, and with what is still to be
// received.
func (p *peer) restoreSession(from state.Session) *session {
	s := newSession(p, &from.Keys, from.Local, from.Initiator, from.Created)
	s.counter.Store(from.Counter)
	s.window.restore(from.Window)
	p.device.indices.grant(from.Local, s)
	return s
}
