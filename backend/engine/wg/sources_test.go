package wg

import (
	"bytes"
	"errors"
	"net"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/loden-net/loden/backend/engine/wg/conn"
	"github.com/loden-net/loden/backend/engine/wg/offload"
	"github.com/loden-net/loden/test/sandbox"
	"github.com/loden-net/loden/test/sandbox/sandboxtest"
)

// fakeRoutes is a routing table with a single route.
type fakeRoutes struct {
	changed chan struct{}
	device  uint32
	gone    netip.Addr // a source that is not an address of the host
	asked   int
}

func (f *fakeRoutes) Wait() error {
	if _, ok := <-f.changed; !ok {
		return net.ErrClosed
	}
	return nil
}

func (f *fakeRoutes) Device(_, source netip.Addr, _ uint32) (uint32, error) {
	f.asked++
	if source.IsValid() && source == f.gone {
		return 0, conn.ErrSourceGone
	}
	return f.device, nil
}

func (f *fakeRoutes) Close() { close(f.changed) }

func TestSourceFollowsTheRoutingTable(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, table := idle(), &fakeRoutes{changed: make(chan struct{}), device: 7}
		d.linkIndex.Store(9)
		if err := configure(d, "public_key="+key(1)+"\nendpoint=192.0.2.2:51820\n"); err != nil {
			t.Fatal(err)
		}
		d.others.Go(func() { d.checkSources(table) })
		p, local := onlyPeer(d), netip.MustParseAddr("10.1.0.1")
		arrive := func() {
			if p.SetEndpointFromPacket(netip.MustParseAddrPort("192.0.2.2:51820"), local, 7) {
				d.checkSoon()
			}
		}
		change := func(device uint32) {
			table.device = device
			table.changed <- struct{}{}
			time.Sleep(500 * time.Millisecond)
		}
		want := func(what string, source netip.Addr, loop bool) {
			t.Helper()
			synctest.Wait()
			if to := p.Endpoint(); to.Source != source || to.Loop != loop {
				t.Errorf("%s: sent from %v, loop %v; want %v, %v", what, to.Source, to.Loop, source, loop)
			}
		}
		arrive()
		want("the route leaves by the device of arrival", local, false)
		asked := table.asked
		for range 1000 {
			arrive()
		}
		time.Sleep(time.Minute)
		if table.asked != asked {
			t.Errorf("the table was asked %d times more without a reason", table.asked-asked)
		}
		change(8)
		want("the route moved", netip.Addr{}, false)
		arrive() // the peer still sends to the address before: proof of the way in, not of the way out
		time.Sleep(time.Second)
		want("a packet still arrives the old way", netip.Addr{}, false)
		change(7)
		want("the route moved back", local, false)
		change(9)
		want("the route leaves by the interface itself", netip.Addr{}, true)
		change(7)
		want("the loop is withdrawn", local, false)
		table.gone = local
		change(7)
		want("the address has left the host", netip.Addr{}, false)
		close(d.closed)
		d.others.Wait()
	})
}

// twoUplinks makes machine a with two uplinks to a router that drops packets with a source of the
// other uplink, as providers do, and machine b behind the router.
func twoUplinks(t *testing.T) (a, b *machine) {
	t.Helper()
	a, b = newMachine(t, 1), newMachine(t, 2)
	r := sandboxtest.Host(t, "router")
	for _, w := range []struct {
		h        *sandbox.Host
		dev, far string
	}{{a.host, "eth0", "ra0"}, {a.host, "eth1", "ra1"}, {b.host, "eth0", "rb"}} {
		if err := sandbox.Wire(w.h, w.dev, r, w.far); err != nil {
			t.Fatal(err)
		}
	}
	forwards(t, r)
	if err := r.Run("sysctl", "-qw", "net.ipv4.conf.all.rp_filter=1", "net.ipv4.conf.ra0.rp_filter=1", "net.ipv4.conf.ra1.rp_filter=1"); err != nil {
		t.Fatal(err)
	}
	if err := a.host.Run("sysctl", "-qw", "net.ipv4.conf.all.rp_filter=0", "net.ipv4.conf.eth0.rp_filter=0", "net.ipv4.conf.eth1.rp_filter=0"); err != nil {
		t.Fatal(err)
	}
	lines(t, r, "addr add 10.1.0.254/24 dev ra0", "addr add 10.2.0.254/24 dev ra1", "addr add 192.0.3.254/24 dev rb")
	lines(t, b.host, "addr add 192.0.3.2/24 dev eth0", "route add default via 192.0.3.254", "link set wg0 mtu 1420 up", "addr add 10.0.0.2/24 dev wg0")
	lines(t, a.host, "addr add 10.1.0.1/24 dev eth0", "addr add 10.2.0.1/24 dev eth1", "route add default via 10.1.0.254", "link set wg0 mtu 1420 up", "addr add 10.0.0.1/24 dev wg0")
	a.device.LinkChanged()
	b.device.LinkChanged()
	a.meet(b.node, "")
	b.meet(a.node, "")
	a.mustSet("public_key=%s\nendpoint=192.0.3.2:51820\n", b.public.Hex())
	return a, b
}

func TestTunnelSurvivesAMoveOfTheDefaultRoute(t *testing.T) {
	for _, way := range []struct {
		name  string
		steps []string
	}{
		{"the route moves", []string{"route replace default via 10.2.0.254"}},
		{"the first link goes down", []string{"link set eth0 down", "route replace default via 10.2.0.254"}},
		{"a rule chooses another table", []string{"route add default via 10.2.0.254 table 7", "rule add to 192.0.3.0/24 table 7"}},
	} {
		t.Run(way.name, func(t *testing.T) {
			a, b := twoUplinks(t)
			a.ping(t, "10.0.0.2")
			b.ping(t, "10.0.0.1") // b sends too: its packets keep arriving at the old address
			lines(t, a.host, way.steps...)
			began := time.Now()
			sandboxtest.Until(t, 20*time.Second, "a ping", func() error {
				return errors.Join(a.host.Run("ping", "-c1", "-W0.1", "10.0.0.2"))
			})
			if took := time.Since(began); took > 2*time.Second { // 0.1 s on an idle machine
				t.Errorf("the tunnel was dead for %v", took)
			}
			b.ping(t, "10.0.0.1")
			if got := b.value("endpoint"); got != "10.2.0.1:51820" {
				t.Errorf("b sends to %s", got)
			}
		})
	}
}

func TestEndpointRoutedIntoTheTunnelIsRefused(t *testing.T) {
	a, b := newMachine(t, 1), newMachine(t, 2)
	connect(t, a, b, false, 1500, 1420)
	a.mustSet("public_key=%s\nallowed_ip=0.0.0.0/0\n", b.public.Hex())
	a.ping(t, "10.0.0.2")
	lines(t, a.host, "route add 192.0.2.2/32 dev wg0")
	before := a.only().Status().Sent
	_ = a.host.Run("ping", "-c3", "-i0.2", "-W1", "10.0.0.2") // no answer can come
	if got := a.only().Status().Sent - before; got > 1000 {
		t.Errorf("%d bytes sent for three pings", got)
	}
	if a.device.counters.looped.Load() == 0 {
		t.Error("not counted")
	}
	sandboxtest.Until(t, 10*time.Second, "the report of the loop", func() error {
		if n := a.device.Loops(); n != 1 {
			return errors.New("no loop reported")
		}
		return nil
	})
	lines(t, a.host, "route del 192.0.2.2/32 dev wg0")
	sandboxtest.Until(t, 10*time.Second, "a ping once the route is withdrawn", func() error {
		return a.host.Run("ping", "-c1", "-W1", "10.0.0.2")
	})
	if n := a.device.Loops(); n != 0 {
		t.Errorf("%d loops reported", n)
	}
}

// TestOwnDatagramIsRecognized feeds a sender the datagrams that it sent itself, and datagrams of a pod
// that runs WireGuard with the same port.
func TestOwnDatagramIsRecognized(t *testing.T) {
	d, k, _ := tunnelEnds(t)
	if err := configure(d, "public_key="+key(1)+"\nallowed_ip=192.0.2.0/24\nallowed_ip=2001:db8::/64\nendpoint=192.0.2.2:51820\n"); err != nil {
		t.Fatal(err)
	}
	d.boundPort.Store(51820)
	s := newSender(d)
	send := func(pkt []byte) int {
		k.last = nil
		s.packet(append(make([]byte, offload.HeaderSize), pkt...))
		s.flush()
		return len(k.last)
	}
	outer := func(from, to uint16, payload []byte) []byte {
		x, y := blank(t, "", 1), blank(t, "", 2)
		y.inner[0] = netip.MustParseAddr("192.0.2.2")
		b := datagram(x, y, 0, payload)
		b[20], b[21], b[22], b[23] = byte(from>>8), byte(from), byte(to>>8), byte(to)
		return b
	}
	if send(outer(1, 2, []byte("any packet"))) == 0 {
		t.Fatal("a packet for the peer was not sent")
	}
	own := bytes.Clone(k.last)
	if n := send(outer(51820, 51820, own)); n != 0 || d.counters.looped.Load() != 1 {
		t.Errorf("a datagram of the device itself was sent again: %d bytes, %d counted", n, d.counters.looped.Load())
	}
	foreign := bytes.Clone(own)
	foreign[4]++ // the index of another device
	for range 3 {
		if send(outer(51820, 51820, foreign)) == 0 {
			t.Error("a datagram of a pod's WireGuard was dropped")
		}
	}
	if send(outer(51821, 51820, own)) == 0 {
		t.Error("a datagram from another port was dropped")
	}
}
