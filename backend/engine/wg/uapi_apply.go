package wg

import (
	"fmt"
	"net/netip"
	"slices"
	"time"
)

// apply does what a request says. What can fail comes first.
func (d *Device) apply(want *request) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.resolve(want); err != nil {
		return err
	}
	if port, ok := want.port.Get(); ok {
		if err := d.rebind(port); err != nil {
			return err
		}
	}
	if mark, ok := want.mark.Get(); ok {
		if err := d.setMark(mark); err != nil {
			return err
		}
	}
	e := d.routes.begin()
	defer e.commit()
	if private, ok := want.private.Get(); ok {
		if err := d.become(private, e); err != nil {
			return err
		}
	}
	if want.replacePeers {
		for _, p := range d.peers {
			d.drop(p, e)
		}
	}
	for i := range want.peers {
		d.applyPeer(&want.peers[i], e)
	}
	return nil
}

// setMark marks what the sockets send from now on. The caller holds d.mu.
func (d *Device) setMark(mark uint32) error {
	if mark == d.mark {
		return nil
	}
	if b := d.sockets.Load(); b != nil {
		for _, s := range b.all() {
			if err := s.SetMark(mark); err != nil {
				return fmt.Errorf("set fwmark: %w", err)
			}
		}
	}
	d.mark = mark
	for _, p := range d.peers {
		p.unstick() // the way to them may be another
	}
	return nil
}

// applyPeer adds, changes or removes one peer. The caller holds d.mu.
func (d *Device) applyPeer(want *peerRequest, e *edit) {
	p := d.peers[want.key]
	if want.remove {
		if p != nil {
			d.drop(p, e)
		}
		return
	}
	if p == nil {
		self := d.self.Load()
		if want.updateOnly || (self != nil && self.identity.Public() == want.key) {
			return
		}
		p = &peer{device: d, key: want.key}
		d.peers[want.key] = p
	}
	if want.replaceAllowed {
		for _, prefix := range p.allowed {
			e.remove(prefix)
		}
		p.allowed = nil
	}
	for _, a := range want.allowed {
		if a.remove {
			d.disallow(p, a.prefix, e)
		} else {
			d.allow(p, a.prefix, e)
		}
	}
	p.change(want)
}

// change sets what belongs to the peer alone.
func (p *peer) change(want *peerRequest) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if key, ok := want.preshared.Get(); ok {
		p.preshared = key
	}
	if remote, ok := want.endpoint.Get(); ok {
		if to := p.to.Load(); to == nil || to.remote != remote {
			p.to.Store(&endpoint{remote: remote})
		}
	}
	if seconds, ok := want.keepalive.Get(); ok {
		p.keepalive = time.Duration(seconds) * time.Second
		if p.keepalive == 0 {
			p.persistAt = 0
		}
	}
	if p.keepalive != 0 || p.timer != nil {
		p.schedule(p.device.now())
	}
}

// allow routes prefix to p, whoever had it before. The caller holds d.mu.
func (d *Device) allow(p *peer, prefix netip.Prefix, e *edit) {
	switch before := e.owner(prefix); before {
	case p:
		return
	case nil:
	default:
		before.allowed = slices.DeleteFunc(before.allowed, func(x netip.Prefix) bool { return x == prefix })
	}
	p.allowed = append(p.allowed, prefix)
	e.insert(prefix, p)
}

// disallow takes prefix away from p if it has it. The caller holds d.mu.
func (d *Device) disallow(p *peer, prefix netip.Prefix, e *edit) {
	if e.owner(prefix) != p {
		return
	}
	p.allowed = slices.DeleteFunc(p.allowed, func(x netip.Prefix) bool { return x == prefix })
	e.remove(prefix)
}

// drop forgets a peer. The caller holds d.mu.
func (d *Device) drop(p *peer, e *edit) {
	for _, prefix := range p.allowed {
		e.remove(prefix)
	}
	p.allowed = nil
	delete(d.peers, p.key)
	p.remove()
}
