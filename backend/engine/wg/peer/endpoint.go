package peer

import "net/netip"

// Endpoint is where a peer is reached. It is immutable: peers hold a pointer and replace it.
type Endpoint struct {
	Remote netip.AddrPort

	// Local and Device are the address and the index of the device of this host that the peer's
	// datagrams arrive at; zero: unknown.
	Local  netip.Addr
	Device uint32

	// Source is the address to send from: Local, or the zero Addr, which leaves the choice to the
	// routing table, when the route leaves by another device.
	Source netip.Addr

	// Loop reports that the route to Remote leaves by the WireGuard interface itself: nothing may be
	// sent.
	Loop bool

	suspect bool   // a datagram to Remote came back
	checked uint64 // generation of the routing table that Source and Loop are from
}

// EndpointFromPacket returns the endpoint of a datagram's sender.
func EndpointFromPacket(from netip.AddrPort, local netip.Addr, device uint32) Endpoint {
	return Endpoint{Remote: from, Local: local, Device: device, Source: local}
}

// NeedsCheck reports whether the routing table, in its present generation, has to be asked: see
// Judge. Generations start at 1.
func (e *Endpoint) NeedsCheck(generation uint64) bool {
	return e.checked < generation && (e.Local.IsValid() || e.Loop || e.suspect)
}

// WithoutLocal returns a copy without the address and device of arrival.
func (e *Endpoint) WithoutLocal() *Endpoint {
	out := *e
	out.Local, out.Device = netip.Addr{}, 0
	return &out
}

// SetEndpointFromPacket remembers where an authentic message came from: section 2.1. It reports
// whether the endpoint is another, so that the routing table has to be asked.
func (p *Peer) SetEndpointFromPacket(from netip.AddrPort, local netip.Addr, device uint32) (changed bool) {
	if to := p.endpoint.Load(); to != nil && to.Remote == from && to.Local == local && to.Device == device {
		return false
	}
	to := EndpointFromPacket(from, local, device)
	p.endpoint.Store(&to)
	return true
}

// ClearSource forgets the local address of the endpoint: it may have left the host. The next message
// from the peer sets it again.
func (p *Peer) ClearSource() {
	if to := p.endpoint.Load(); to != nil && to.Local.IsValid() {
		p.endpoint.CompareAndSwap(to, &Endpoint{Remote: to.Remote, Loop: to.Loop, suspect: to.suspect})
	}
}

// Judge notes the answer of the routing table for the endpoint before, unless it was replaced
// meanwhile: datagrams to it leave by device, and own is the WireGuard interface. asked is before, or
// a copy without the address of arrival when that address has left the host.
func (p *Peer) Judge(before, asked *Endpoint, device, own uint32, generation uint64) {
	after := *asked
	after.checked, after.suspect = generation, false
	after.Loop = own != 0 && device == own
	if after.Source = asked.Local; after.Loop || (after.Device != 0 && device != after.Device) {
		after.Source = netip.Addr{}
	}
	p.endpoint.CompareAndSwap(before, &after)
}

// SuspectLoop makes NeedsCheck report true: a datagram to the peer came back from the TUN device.
func (p *Peer) SuspectLoop() {
	to := p.endpoint.Load()
	if to == nil || to.suspect || to.Loop {
		return
	}
	after := *to
	after.suspect, after.checked = true, 0
	p.endpoint.CompareAndSwap(to, &after)
}

// SendsWith reports whether transport messages to an address with that receiver index are messages
// to this peer.
func (p *Peer) SendsWith(to netip.AddrPort, index uint32) bool {
	if e := p.endpoint.Load(); e == nil || e.Remote != to {
		return false
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.active == nil {
		return false
	}
	for _, k := range []*Keypair{p.active.current, p.active.previous, p.active.next} {
		if k != nil && k.remote == index {
			return true
		}
	}
	return false
}
