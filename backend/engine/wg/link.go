package wg

import "github.com/loden-net/loden/backend/engine/wg/tun"

// The interface decides when the device is on the network, as with kernel WireGuard (wg_open
// and wg_stop in drivers/net/wireguard/device.c), with one difference:
//
//	             Run ──► sockets open ◄──────────────── interface goes up:
//	                          │      ▲                  same port, keepalives
//	     interface goes down: ▼      │ listen_port set      │
//	              asleep: no sockets, no timers, ───────────┘
//	              no sessions, nothing staged
//
// The sockets are open before the interface is up for the first time: whoever sets a port
// that is taken is told so, which nobody could be when the interface comes up.

// LinkChanged tells the device that its interface may have gone up or down, or may have
// another MTU, which bounds padding. It looks by itself; of a change that was undone before
// it looked it learns nothing.
func (d *Device) LinkChanged() {
	now, err := d.measure()
	if err != nil {
		return // it has gone: the TUN file tells
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	before := d.up
	d.up = now.Up
	switch {
	case !d.running.Load():
	case before && !now.Up:
		d.sleep()
	case now.Up && d.asleep.Load():
		if err := d.rebind(d.port); err != nil {
			// UAPI shows no port now, so that whoever wants one sets it, and gets the error.
			d.log.Warn().Err(err).Msg("interface up without sockets: tried again when it changes")
		}
	}
}

// measure looks at the interface and notes its MTU.
func (d *Device) measure() (tun.Link, error) {
	now, err := d.tunnel.Link()
	if err == nil {
		d.linkMTU.Store(int64(now.MTU))
	}
	return now, err
}

// sleep leaves the network: it closes the sockets and ends every conversation. The caller
// holds d.mu.
func (d *Device) sleep() {
	d.asleep.Store(true) // before the first conversation ends: none begins behind it
	d.unbind()
	for _, p := range d.peers {
		p.sleep()
	}
	d.log.Info().Msg("interface down: sockets closed")
}

// wake makes the peers go on once there are sockets again. The caller holds d.mu.
func (d *Device) wake() {
	if d.asleep.Swap(false) {
		for _, p := range d.peers {
			p.wake()
		}
	}
}

// mute reports whether nothing may be said to the peer, and no timer may run: it is no
// longer configured, or the device is off the network. The caller holds p.mu.
func (p *peer) mute() bool { return p.removed || p.device.asleep.Load() }

// sleep ends the conversation and the timer.
func (p *peer) sleep() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.forget()
	p.wantsKeys.Store(false)
	p.wakeAt.Store(0)
	if p.timer != nil {
		p.timer.Stop()
	}
}

// wake makes a peer with persistent keepalive hear of us at once. Others are for the next
// packet.
func (p *peer) wake() {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := p.device.now()
	if p.keepalive != 0 {
		p.persistAt = now
		p.sayNothing(now)
	}
	p.schedule(now)
}

// shownPort is the port that UAPI shows: the one of the sockets, or the one they will have.
// Zero when there should be sockets and there are none. The caller holds d.mu.
func (d *Device) shownPort() uint16 {
	switch open := d.sockets.Load(); {
	case open != nil:
		return open.port
	case d.up && d.asleep.Load():
		return 0
	}
	return d.port
}
