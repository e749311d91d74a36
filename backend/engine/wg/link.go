package wg

import "github.com/loden-net/loden/backend/engine/wg/tun"

// The interface decides when the device is on the network, as with kernel WireGuard (wg_open
// and wg_stop in drivers/net/wireguard/device.c), with one difference:
//
//	             Run ──► sockets open ◄──────────────── interface goes up:
//	                          │      ▲                  same port, keepalives
//	     interface goes down: ▼      │ listen_port set      │
//	              down: no sockets, no timers, ─────────────┘
//	              no keypairs, no staged packets
//
// The sockets are open before the interface is up for the first time: a client that sets a port
// that is in use gets an error, and no client waits for an answer when the interface comes up.

// LinkChanged tells the device that its interface may have gone up or down, or may have another
// MTU, which bounds padding. The device looks at the interface by itself, and misses a change that
// was undone before it looked.
func (d *Device) LinkChanged() {
	now, err := d.measure()
	if err != nil {
		return // the interface has gone: reading the TUN file reports it
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	before := d.up
	d.up = now.Up
	switch {
	case !d.running.Load():
	case before && !now.Up:
		d.bringDown()
	case now.Up && d.local.Down():
		if err := d.rebind(d.port); err != nil {
			// UAPI shows no port now, so that a client sets the port it wants, and gets the error.
			d.log.Warn().Err(err).Msg("interface is up but its UDP sockets did not open: tried again when the interface changes")
		}
	}
}

// measure reads the state of the interface and notes its MTU.
func (d *Device) measure() (tun.Link, error) {
	now, err := d.tunnel.Link()
	if err == nil {
		d.linkMTU.Store(int64(now.MTU))
		d.linkIndex.Store(int64(now.Index))
	}
	return now, err
}

// bringDown closes the sockets and makes every peer idle. The caller holds d.mu.
func (d *Device) bringDown() {
	d.local.SetDown(true) // before the first peer becomes idle, so that no peer starts again behind it
	d.unbind()
	for _, p := range d.peers {
		p.Down()
	}
	d.log.Info().Msg("interface down: sockets closed")
}

// bringUp lets the peers go on once there are sockets again. The caller holds d.mu.
func (d *Device) bringUp() {
	if !d.local.Down() {
		return
	}
	d.local.SetDown(false)
	for _, m := range d.peers {
		d.carryOut(&m.Peer, m.Up(d.now()))
	}
}

// shownPort is the port that UAPI shows: the port of the sockets, or the port that they will have;
// zero when the interface is up and the sockets did not open. The caller holds d.mu.
func (d *Device) shownPort() uint16 {
	switch open := d.sockets.Load(); {
	case open != nil:
		return open.port
	case d.up && d.local.Down():
		return 0
	}
	return d.port
}
