package wg

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/loden-net/loden/backend/engine/wg/noise"
	"github.com/loden-net/loden/backend/linkwatch"
	"github.com/loden-net/loden/test/sandbox/sandboxtest"
)

// link sets the interface of a node of ours in memory up or down.
func (x *node) link(up bool) {
	x.device.tunnel.(*memoryTUN).down.Store(!up)
	x.device.LinkChanged()
}

// to counts what was sent to an address.
func (r *tape) to(at netip.AddrPort) (n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, p := range r.all {
		if p.to == at {
			n++
		}
	}
	return n
}

func TestNothingIsSaidWhileTheInterfaceIsDown(t *testing.T) {
	bubble(t, func(t *testing.T, w *wire, a, b *node) {
		a.meet(b, "persistent_keepalive_interval=25\n")
		b.meet(a, "")
		a.says(b, 0, "before")
		b.says(a, 1, "before")
		a.link(false)
		if p := a.only(); !p.Idle() || p.Current() != nil || a.device.local.Indices() != 0 {
			t.Error("the interface is down, and there are sessions")
		}
		if got := a.value("listen_port"); got != "51820" {
			t.Errorf("port %q", got)
		}
		var r tape
		r.on(w)
		a.in(datagram(a, b, 0, []byte("read from the TUN just before")))
		synctest.Wait()
		if p := a.only(); !p.Idle() || p.Deadline() != 0 {
			t.Error("a packet that comes late begins a handshake")
		}
		time.Sleep(time.Hour)
		if n := r.to(b.outer); n != 0 {
			t.Errorf("%d datagrams in an hour", n)
		}
		a.mustSet("listen_port=51821\npublic_key=%s\npersistent_keepalive_interval=10\n", b.public.Hex())
		time.Sleep(time.Hour)
		if n := r.to(b.outer); n != 0 || a.value("listen_port") != "51821" {
			t.Errorf("%d datagrams in an hour, port %s", n, a.value("listen_port"))
		}
		a.link(true)
		time.Sleep(time.Second)
		if got := r.of(noise.TypeTransport, b.outer); len(got) != 1 || got[0].from.Port() != 51821 {
			t.Errorf("in the first second %d keepalives: %v", len(got), got)
		}
		b.says(a, 0, "after") // b has learned the new port
		before := len(r.of(noise.TypeInitiation, b.outer))
		for _, x := range []*node{a, b} { // too short for a keepalive to be due
			x.link(false)
			x.link(true)
		}
		time.Sleep(time.Second)
		if n := len(r.of(noise.TypeInitiation, b.outer)) - before; n != 1 {
			t.Errorf("%d handshakes at once", n)
		}
		b.says(a, 1, "again")
	})
}

func TestPortThatIsTakenWhenTheInterfaceComesUpIsNotShown(t *testing.T) {
	a := newMachine(t, 1)
	lines(t, a.host, "link set wg0 up")
	a.device.LinkChanged()
	lines(t, a.host, "link set wg0 down")
	a.device.LinkChanged()
	other := a.listen(t)
	lines(t, a.host, "link set wg0 up")
	a.device.LinkChanged()
	if got := a.value("listen_port"); got != "" {
		t.Errorf("shows port %s", got)
	}
	if err := a.set("listen_port=51820\n"); err == nil {
		t.Error("the port is taken, and set")
	}
	_ = other.Close()
	a.mustSet("listen_port=51820\n")
	if got := a.value("listen_port"); got != "51820" {
		t.Errorf("shows port %q", got)
	}
}

// listen takes the machine's UDP port when the device has let it go.
func (m *machine) listen(t *testing.T) (c net.PacketConn) {
	t.Helper()
	sandboxtest.Until(t, 10*time.Second, "a free port", func() error {
		return m.host.Do(func() (err error) { c, err = net.ListenPacket("udp", ":51820"); return err })
	})
	t.Cleanup(func() { _ = c.Close() })
	return c
}

func TestDeviceLeavesTheNetworkWithItsInterface(t *testing.T) {
	a, b := newMachine(t, 1), newMachine(t, 2)
	connect(t, a, b, false, 1500, 1420)
	a.mustSet("public_key=%s\npersistent_keepalive_interval=1\n", b.public.Hex())
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() {
		ended <- a.host.Do(func() error { return linkwatch.Watch(ctx, "wg0", a.device.LinkChanged) })
	}()
	defer func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}()
	a.ping(t, "10.0.0.2")
	for range 3 {
		before := a.only().Current()
		lines(t, a.host, "link set wg0 down")
		c := a.listen(t) // both families
		if !a.only().Idle() {
			t.Error("the interface is down, and there is handshake state")
		}
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
		lines(t, a.host, "link set wg0 up")
		sandboxtest.Until(t, 20*time.Second, "a session for a keepalive", func() error {
			if now := a.only().Current(); now == nil || now == before {
				return fmt.Errorf("it has %v", now)
			}
			return nil
		})
		b.ping(t, "10.0.0.1")
		a.ping(t, "10.0.0.2")
	}
}
