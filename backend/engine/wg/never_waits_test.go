package wg

import (
	"errors"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/loden-net/loden/backend/engine/fd"
	"github.com/loden-net/loden/backend/engine/wg/conn"
	"github.com/loden-net/loden/test/sandbox"
)

// TestSendNeverWaitsForRoom fills the send buffer of a socket with datagrams to a host that does
// not exist, which wait for its hardware address. The sender must be back at once, with every
// datagram either sent or counted: a waiting sender would stop all other peers.
func TestSendNeverWaitsForRoom(t *testing.T) {
	a, err := sandbox.NewHost("full-a")
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	b, err := sandbox.NewHost("full-b")
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	if err := sandbox.Wire(a, "eth0", b, "eth0"); err != nil {
		t.Fatal(err)
	}
	lines(t, a, "addr add 192.0.2.1/24 dev eth0", "link set eth0 up")
	lines(t, b, "link set eth0 up")
	var p conn.Pair
	if err := a.Do(func() (err error) { p, err = conn.Open(0, 0); return err }); err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	file, err := p.V4.Duplicate()
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if err := fd.Control(file, func(fd int) error { return unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUF, 16<<10) }); err != nil {
		t.Fatal(err)
	}
	const batches = 4
	out := make([]conn.Outgoing, conn.BatchSize)
	done := make(chan error, 1)
	go func() {
		var last error
		for range batches {
			for i := range out {
				out[i].Start(netip.MustParseAddrPort("192.0.2.9:7"), netip.Addr{}, make([]byte, 1400), 0)
			}
			if err := p.V4.Send(out); err != nil {
				last = err
			}
		}
		done <- last
	}()
	select {
	case err := <-done:
		if full, _ := p.V4.Drops(); !errors.Is(err, unix.EAGAIN) || full == 0 || full >= batches*conn.BatchSize {
			t.Errorf("error %v, %d of %d datagrams counted as dropped", err, full, batches*conn.BatchSize)
		}
	case <-time.After(time.Second):
		t.Error("the sender waits for room in the socket's buffer")
		_ = p.V4.Close() // ends the wait
		<-done
	}
}
