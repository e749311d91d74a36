package wg

import (
	"github.com/loden-net/loden/backend/engine/wg/state"
	"github.com/loden-net/loden/config/opt"
)

// A device that another process is to go on with stops in this order, so that no packet is
// lost on the way: reading ends at both ends, what was read is sent, handshake messages that
// wait are answered; then the state is written down. What arrives from here on waits in the
// queues of the TUN device and the sockets, which the other process gets.

// settle ends reading and works off what was read.
func (d *Device) settle() {
	d.mu.Lock()
	d.running.Store(false)
	d.tunnel.StopReading()
	if b := d.sockets.Load(); b != nil {
		for _, s := range b.all() {
			s.StopReceiving()
		}
	}
	d.mu.Unlock()
	d.movers.Wait()
	close(d.closed)
	d.workers.Wait()
	s := newSender(d)
	for len(d.letters) > 0 {
		d.handle(<-d.letters, s)
	}
}

// export writes down everything of a settled device.
func (d *Device) export() *state.Device {
	d.mu.Lock()
	defer d.mu.Unlock()
	s := &state.Device{Now: d.now(), Port: d.port, Mark: d.mark}
	if self := d.self.Load(); self != nil {
		s.Private = self.identity.Private()
	}
	for _, p := range d.sorted() {
		s.Peers = append(s.Peers, p.export())
	}
	return s
}

// export writes down one peer. The caller holds Device.mu.
func (p *peer) export() state.Peer {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := state.Peer{
		Public: p.key, Preshared: p.preshared, Keepalive: uint16(p.keepalive.Seconds()), Allowed: p.allowed,
		Sent: p.sentBytes.Load(), Received: p.gotBytes.Load(), Newest: p.newest, ReadAt: p.readAt, PersistAt: p.persistAt,
		SentAt: moment(p.sentAt.Load()), GotAt: moment(p.gotAt.Load()),
		OwedSince: moment(p.owedSince.Load()), AwaitSince: moment(p.awaitSince.Load()), WantsKeys: p.wantsKeys.Load(),
	}
	if !p.finishedAt.IsZero() {
		s.Finished = p.finishedAt.UnixNano()
	}
	if to := p.to.Load(); to != nil {
		s.Endpoint, s.Local = opt.Some(to.remote), to.local
	}
	if c := p.talk; c != nil {
		s.WantsKeys = s.WantsKeys || c.initiator != nil
		s.Talk = opt.Some(state.Talk{
			Shared: c.shared, BegunAt: c.begunAt, OpenedAt: c.openedAt, DerivedAt: c.derivedAt,
			Current: c.current.export(), Previous: c.previous.export(), Next: c.next.export(), Staged: c.stage.packets,
		})
	}
	return s
}

// spareCounters are skipped in what the next process sends. None would do, since this one
// has stopped; a counter used twice would give the keystream away, so that is not all there
// is between us and that. It stays far below the receiver's window.
const spareCounters = 1 << 10

// export writes down a session, if there is one. The caller holds peer.mu.
func (s *session) export() opt.Option[state.Session] {
	if s == nil {
		return opt.None[state.Session]()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return opt.Some(state.Session{
		Keys: s.keys, Local: s.local, Initiator: s.initiator, Created: s.created,
		Counter: min(s.counter.Load()+spareCounters, rejectAfterMessages), Window: s.window.export(),
	})
}
