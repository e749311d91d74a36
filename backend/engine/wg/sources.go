package wg

import (
	"errors"
	"net/netip"
	"time"

	"github.com/loden-net/loden/backend/engine/wg/conn"
	"github.com/loden-net/loden/backend/engine/wg/peer"
)

// A datagram goes out from the address that the peer's datagrams arrive at. That address proves the
// way in, not the way out: when the route leaves by another device, a router on that way may drop
// the address. Kernel WireGuard asks the routing table with every send (send4 in
// drivers/net/wireguard/socket.c): it drops the address when the route leaves by another device
// than the datagram arrived at, and refuses to send into its own interface (ELOOP).
//
// This device asks when the answer may be another: when an endpoint was learned, and when the kernel
// announces a change of routes, rules, addresses or links. Then it asks for all endpoints in
// question, and rests four times as long as that took, so that a routing table in constant change
// costs a fifth of a core at most. With 10,000 peers the answers come within 0.5 s.
//
//	learned, or table changed ──► unchecked ──► route by the device of arrival: keep the source
//	                                       ├──► route by another device:        the kernel chooses the source
//	                                       └──► route by this interface:        send nothing, count, report

// routeTable is the kernel's routing table: *conn.Routes, or a fake in tests.
type routeTable interface {
	Wait() error
	Device(to, source netip.Addr, mark uint32) (uint32, error)
	Close()
}

// checkPause is the shortest rest between two rounds of checks.
const checkPause = 20 * time.Millisecond

// checkSources checks endpoints until the device closes. It owns table.
func (d *Device) checkSources(table routeTable) {
	d.others.Go(func() {
		for table.Wait() == nil {
			d.routesChanged.Add(1)
			d.pathsChanged()
			d.checkSoon()
		}
	})
	defer table.Close() // ends Wait
	for {
		select {
		case <-d.closed:
			return
		case <-d.unchecked:
		}
		began := time.Now()
		d.checkRound(table)
		select {
		case <-d.closed:
			return
		case <-time.After(max(checkPause, 4*time.Since(began))):
		}
	}
}

// checkSoon wakes checkSources. It never waits.
func (d *Device) checkSoon() {
	select {
	case d.unchecked <- struct{}{}:
	default:
	}
}

// checkRound checks every endpoint whose answer may be another than before.
func (d *Device) checkRound(table routeTable) {
	generation := d.routesChanged.Load() + 1
	own := uint32(d.linkIndex.Load())
	d.mu.RLock()
	mark := d.mark
	var all []*peer.Peer
	for _, m := range d.peers {
		if to := m.Endpoint(); to != nil && to.NeedsCheck(generation) {
			all = append(all, &m.Peer)
		}
	}
	d.mu.RUnlock()
	for _, p := range all {
		to := p.Endpoint()
		if to == nil || !to.NeedsCheck(generation) {
			continue
		}
		asked := to
		device, err := table.Device(to.Remote.Addr(), to.Local, mark)
		if errors.Is(err, conn.ErrSourceGone) {
			asked = to.WithoutLocal()
			device, err = table.Device(to.Remote.Addr(), netip.Addr{}, mark)
		}
		if err != nil {
			continue // no route now: the next change of the table is awaited
		}
		p.Judge(to, asked, device, own, generation)
	}
}

// Loops returns the number of peers whose endpoint is routed into this interface. No datagram is
// sent to them: it would come back as a packet to be sent.
func (d *Device) Loops() (n int) {
	d.mu.RLock()
	defer d.mu.RUnlock()
	for _, m := range d.peers {
		if to := m.Endpoint(); to != nil && to.Loop {
			n++
		}
	}
	return n
}
