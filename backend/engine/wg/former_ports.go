package wg

import (
	"slices"
	"time"
)

// When the listen port changes, peers send to the port before until they learn the new one. The
// sockets of the port before stay open for a while and receive; packets leave from the new port
// alone. Kernel WireGuard and wireguard-go close them at once and lose what is under way. Each peer
// with a session gets a keepalive from the new port at once, by which it learns the port.

// formerPortFor is how long the port before is received from. A peer in use answers within a second;
// longer would keep the port from other programs.
const formerPortFor = 5 * time.Second

// formerPort is sockets that only receive.
type formerPort struct {
	bound
	timer *time.Timer // closes them
}

// retire lets the sockets of a port before receive for a while, if there are peers, and tells the
// peers of the new port. The caller holds d.mu and has stored the sockets that follow.
func (d *Device) retire(b bound) {
	if len(d.peers) == 0 {
		d.closeSockets(b)
		return
	}
	f := &formerPort{bound: b}
	f.timer = time.AfterFunc(formerPortFor, func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		d.closeFormer(func(x *formerPort) bool { return x == f })
	})
	d.former = append(d.former, f)
	for _, m := range d.peers {
		d.carryOut(&m.Peer, m.Announce(d.now()))
	}
}

// closeFormer closes those former ports for which f returns true. The caller holds d.mu.
func (d *Device) closeFormer(f func(*formerPort) bool) {
	d.former = slices.DeleteFunc(d.former, func(x *formerPort) bool {
		if !f(x) {
			return false
		}
		x.timer.Stop()
		d.closeSockets(x.bound)
		return true
	})
}

// closeSockets closes sockets and keeps their counts of drops.
func (d *Device) closeSockets(b bound) {
	for _, s := range b.all() {
		full, lost := bufferDrops(s)
		d.counters.sendFull.Add(full)
		d.counters.receiveFull.Add(lost)
		if err := s.Close(); err != nil {
			d.log.Debug().Err(err).Msg("closed UDP socket")
		}
	}
}
