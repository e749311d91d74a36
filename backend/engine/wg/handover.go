package wg

import (
	"errors"
	"maps"
	"slices"

	"github.com/loden-net/loden/backend/engine/wg/state"
	"github.com/loden-net/loden/backend/engine/wg/uapi"
	"github.com/loden-net/loden/config/opt"
)

// A device that is handed over to another process stops in this order, so that no packet is lost
// on the way: reading ends at the TUN device and at the sockets, the packets that were read are
// sent, handshake messages that wait are answered; then the state is exported. Packets that arrive
// from here on wait in the queues of the TUN device and the sockets, which the other process gets.

// drain ends reading and finishes the packets and messages that were read.
func (d *Device) drain() {
	d.mu.Lock()
	d.running.Store(false)
	d.tunnel.StopReading()
	d.closeFormer(func(*formerPort) bool { return true }) // the other process does not know them
	if b := d.sockets.Load(); b != nil {
		for _, s := range b.all() {
			s.StopReceiving()
		}
	}
	d.mu.Unlock()
	d.movers.Wait()
	close(d.closed)
	d.others.Wait()
	s := newSender(d)
	for len(d.handshakes) > 0 {
		d.handle(<-d.handshakes, s)
	}
}

// export returns the state of a drained device.
func (d *Device) export() *state.Device {
	d.mu.Lock()
	defer d.mu.Unlock()
	s := &state.Device{Now: d.now(), Port: d.port, Mark: d.mark}
	if id := d.local.Identity(); id != nil {
		s.Private = id.Private()
	}
	peers := slices.AppendSeq(make([]*member, 0, len(d.peers)), maps.Values(d.peers))
	sortByKey(peers)
	for _, m := range peers {
		p := m.Export()
		p.Allowed = m.allowed
		s.Peers = append(s.Peers, p)
	}
	return s
}

// restore gives a new device the state that another device exported.
func (d *Device) restore(s *state.Device) error {
	d.clock = newClock(s.Now) // moments keep their meaning
	want := &uapi.Request{ListenPort: opt.Some(s.Port), Mark: opt.Some(s.Mark)}
	if !s.Private.IsZero() {
		want.PrivateKey = opt.Some(s.Private)
	}
	defer want.Wipe()
	for i := range s.Peers {
		p := &s.Peers[i]
		r := uapi.PeerRequest{PublicKey: p.Public, PresharedKey: opt.Some(p.Preshared), Endpoint: p.Endpoint, Keepalive: opt.Some(p.Keepalive)}
		for _, prefix := range p.Allowed {
			r.AllowedIPs = append(r.AllowedIPs, uapi.AllowedIP{Prefix: prefix})
		}
		want.Peers = append(want.Peers, r)
	}
	if err := d.apply(want); err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	for i := range s.Peers {
		m := d.peers[s.Peers[i].Public]
		if m == nil {
			return errors.New("the device is its own peer")
		}
		if err := m.Resume(&s.Peers[i]); err != nil {
			return err
		}
	}
	return nil
}
