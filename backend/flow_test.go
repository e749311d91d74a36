package backend_test

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/loden-net/loden/config/opt"
)

// flow is a stream of numbered datagrams from one node's overlay address to the other's.
type flow struct {
	name string
	sent int
	seen []bool
	gap  time.Duration // longest silence
}

func (f *flow) lost() (out []int) {
	for i := range f.sent {
		if !f.seen[i] {
			out = append(out, i)
		}
	}
	return out
}

// run sends every millisecond until stop is closed, but a second at least, and waits for
// the last.
func (f *flow) run(t *testing.T, from, to *node, family opt.Family, stop <-chan struct{}) {
	listen := func(n *node) (c *net.UDPConn) {
		a, _ := n.addresses().Of(family).Get()
		if err := n.Do(func() (err error) {
			c, err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(a, 0)))
			return err
		}); err != nil {
			t.Error(err)
		}
		return c
	}
	in := listen(to)
	if in == nil {
		return
	}
	defer in.Close()
	var out [8]*net.UDPConn // ports, so that every queue of a TUN device carries some
	for i := range out {
		if out[i] = listen(from); out[i] == nil {
			return
		}
		defer out[i].Close()
	}
	_ = in.SetReadBuffer(4 << 20)
	f.seen = make([]bool, 1<<20)
	var group sync.WaitGroup
	group.Go(func() {
		b, last := make([]byte, 100), time.Now()
		for {
			if _, err := in.Read(b); err != nil {
				return
			}
			f.gap, last = max(f.gap, time.Since(last)), time.Now()
			f.seen[binary.BigEndian.Uint32(b)] = true
		}
	})
	b, began := make([]byte, 100), time.Now()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for stop != nil || f.sent < 1000 {
		select {
		case <-stop:
			stop = nil
		case <-tick.C:
			for ; f.sent < int(time.Since(began).Milliseconds()); f.sent++ {
				binary.BigEndian.PutUint32(b, uint32(f.sent))
				if _, err := out[f.sent%len(out)].WriteTo(b, in.LocalAddr()); err != nil {
					t.Errorf("send %d: %v", f.sent, err)
				}
			}
		}
	}
	_ = in.SetReadDeadline(time.Now().Add(time.Second))
	group.Wait()
}

// streams sends 1,000 packets a second each way in each family between two nodes, until the
// function it returns is called, which prints and returns the number of lost packets.
func streams(t *testing.T, a, b *node) (end func() int) {
	t.Helper()
	stop := make(chan struct{})
	var group sync.WaitGroup
	var flows []*flow
	for _, family := range opt.Families() {
		for _, way := range [][2]*node{{a, b}, {b, a}} {
			f := &flow{name: fmt.Sprintf("%s node %d > %d", family, way[0].number, way[1].number)}
			flows = append(flows, f)
			group.Go(func() { f.run(t, way[0], way[1], family, stop) })
		}
	}
	return func() (lost int) {
		t.Helper()
		close(stop)
		group.Wait()
		for _, f := range flows {
			t.Logf("%s: sent %d, lost %d %v, longest silence %v", f.name, f.sent, len(f.lost()), f.lost()[:min(5, len(f.lost()))], f.gap)
			if f.sent < 1000 {
				t.Errorf("%s: only %d packets", f.name, f.sent)
			}
			lost += len(f.lost())
		}
		return lost
	}
}
