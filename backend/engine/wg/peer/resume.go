package peer

import (
	"fmt"
	"time"

	"github.com/loden-net/loden/backend/engine/wg/noise"
	"github.com/loden-net/loden/backend/engine/wg/state"
	"github.com/loden-net/loden/config/opt"
)

// Export returns the state that another process needs to go on with the peer. The caller fills in
// the allowed IPs, and wipes the state.
func (p *Peer) Export() state.Peer {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := state.Peer{
		Public: p.key, Preshared: p.preshared, Keepalive: uint16(p.keepalive.Seconds()),
		Sent: p.sentBytes.Load(), Received: p.receivedBytes.Load(), Newest: p.newest, ReadAt: p.readAt, PersistAt: p.persistAt,
		SentAt: Moment(p.sentAt.Load()), GotAt: Moment(p.receivedAt.Load()),
		OwedSince: Moment(p.owedSince.Load()), AwaitSince: Moment(p.awaitSince.Load()), WantsKeys: p.wantHandshake.Load(),
	}
	if !p.finishedAt.IsZero() {
		s.Finished = p.finishedAt.UnixNano()
	}
	if to := p.endpoint.Load(); to != nil {
		s.Endpoint, s.Local = opt.Some(to.Remote), to.Source
	}
	if a := p.active; a != nil {
		s.WantsKeys = s.WantsKeys || a.initiator != nil
		s.Active = opt.Some(state.Active{
			Shared: a.shared, BegunAt: a.begunAt, OpenedAt: a.openedAt, DerivedAt: a.derivedAt,
			Current: a.current.export(), Previous: a.previous.export(), Next: a.next.export(), Staged: a.staged.packets,
		})
	}
	return s
}

// Resume continues the peer of the process before. The settings that UAPI knows were made by
// Configure.
func (p *Peer) Resume(s *state.Peer) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if remote, ok := s.Endpoint.Get(); ok {
		to := EndpointFromPacket(remote, s.Local, 0)
		p.endpoint.Store(&to)
	}
	p.sentBytes.Store(s.Sent)
	p.receivedBytes.Store(s.Received)
	p.newest, p.readAt, p.persistAt = s.Newest, s.ReadAt, s.PersistAt
	p.sentAt.Store(int64(s.SentAt))
	p.receivedAt.Store(int64(s.GotAt))
	p.owedSince.Store(int64(s.OwedSince))
	p.awaitSince.Store(int64(s.AwaitSince))
	p.wantHandshake.Store(s.WantsKeys)
	if s.Finished != 0 {
		p.finishedAt = time.Unix(0, s.Finished)
	}
	if from, ok := s.Active.Get(); ok {
		return p.resumeActive(from, s.WantsKeys)
	}
	return nil
}

// resumeActive continues handshake, keypairs and staged packets. The caller holds p.mu.
func (p *Peer) resumeActive(from state.Active, wantHandshake bool) error {
	a := &active{
		shared: from.Shared, stamp: noise.NewStamp(p.key), begunAt: from.BegunAt, openedAt: from.OpenedAt, derivedAt: from.DerivedAt,
	}
	p.active = a
	if wantHandshake && a.begunAt != 0 {
		// The pending handshake stayed behind in the process before. The next handshake is due not
		// in 5 s but as soon as the peer accepts another initiation.
		p.handshakeSoon(a.openedAt)
	}
	for _, packet := range from.Staged {
		a.staged.add(packet, &p.local.budget)
	}
	p.hasStaged.Store(len(a.staged.packets) > 0)
	for _, x := range []struct {
		from opt.Option[state.Keypair]
		to   **Keypair
	}{{from.Current, &a.current}, {from.Previous, &a.previous}, {from.Next, &a.next}} {
		s, ok := x.from.Get()
		if !ok {
			continue
		}
		if p.local.indices.lookup(s.Local).peer != nil {
			return fmt.Errorf("two keypairs with index %d", s.Local)
		}
		*x.to = resumeKeypair(p, s)
	}
	p.current.Store(a.current)
	return nil
}
