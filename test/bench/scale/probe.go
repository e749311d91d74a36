package main

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"golang.org/x/net/ipv4"
)

// prober finds out when the peers of leases are configured. While a lease waits, it sends
// packets from the node into the lease's subnet; the engine drops them until it has the peer, and
// then sends a handshake initiation to the peer's endpoint, which the sink receives.
type prober struct {
	pod  func(i int) netip.Addr
	from net.PacketConn // on the node
	sink *ipv4.PacketConn
	raw  net.PacketConn // of sink

	mu      sync.Mutex // guards all below
	waiting map[netip.Addr]awaited
	took    []time.Duration
}

// awaited is a lease whose peer is not yet configured.
type awaited struct {
	pod   netip.Addr
	since time.Time
}

func newProber(b *bed, pod func(int) netip.Addr) (*prober, error) {
	p := &prober{pod: pod, waiting: map[netip.Addr]awaited{}}
	err := b.node.Do(func() (err error) {
		p.from, err = net.ListenPacket("udp4", ":0")
		return err
	})
	if err != nil {
		return nil, err
	}
	b.cleanup = append(b.cleanup, func() { _ = p.from.Close() })
	err = b.far.Do(func() (err error) {
		p.raw, err = net.ListenPacket("udp4", fmt.Sprintf(":%d", port))
		return err
	})
	if err != nil {
		return nil, err
	}
	b.cleanup = append(b.cleanup, func() { _ = p.raw.Close() })
	p.sink = ipv4.NewPacketConn(p.raw)
	return p, p.sink.SetControlMessage(ipv4.FlagDst, true)
}

// listen notes the arrival of initiations until the sink is closed.
func (p *prober) listen() {
	buf := make([]byte, 2048)
	for {
		_, control, _, err := p.sink.ReadFrom(buf)
		if err != nil {
			return // closed with the bed
		}
		now := time.Now()
		to, _ := netip.AddrFromSlice(control.Dst)
		p.mu.Lock()
		if w, ok := p.waiting[to.Unmap()]; ok {
			p.took = append(p.took, now.Sub(w.since))
			delete(p.waiting, to.Unmap())
		}
		p.mu.Unlock()
	}
}

// expect begins the wait for a lease's peer.
func (p *prober) expect(i int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.waiting[endpoint(i)] = awaited{p.pod(i), time.Now()}
}

// send sends a packet for each waiting lease at every tick until ctx is done.
func (p *prober) send(ctx context.Context, tick time.Duration) {
	for ; ctx.Err() == nil; wait(ctx, tick) {
		p.mu.Lock()
		for _, w := range p.waiting {
			_, _ = p.from.WriteTo([]byte("?"), &net.UDPAddr{IP: w.pod.AsSlice(), Port: 9}) // the next tick tries again
		}
		p.mu.Unlock()
	}
}

// finish waits until no lease waits any more, for at most limit, and returns the sorted times.
// Leases without an answer count with the time that they have waited.
func (p *prober) finish(ctx context.Context, limit time.Duration) (took []time.Duration, missing int) {
	count := func() int {
		p.mu.Lock()
		defer p.mu.Unlock()
		return len(p.waiting)
	}
	for end := time.Now().Add(limit); count() > 0 && time.Now().Before(end) && ctx.Err() == nil; {
		wait(ctx, 5*time.Millisecond)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	missing = len(p.waiting)
	for to, w := range p.waiting {
		p.took = append(p.took, time.Since(w.since))
		delete(p.waiting, to)
	}
	took = p.took
	p.took = nil
	slices.Sort(took)
	return took, missing
}

// quantile returns a quantile of sorted times in milliseconds; 0 of no times.
func quantile(took []time.Duration, q float64) float64 {
	if len(took) == 0 {
		return 0
	}
	at := min(len(took)-1, int(q*float64(len(took))))
	return float64(took[at].Microseconds()) / 1000
}
