package wg

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/sys/unix"

	"github.com/loden-net/loden/backend/engine/wg/tun"
	"github.com/loden-net/loden/test/sandbox/sandboxtest"
)

// openTestTUN makes a TUN interface on the host the calling thread is on. With more than one
// queue it has a writer.
func openTestTUN(name string, queues int) (files tun.Files, err error) {
	one := func(flags uint16) (*os.File, error) {
		fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
		if err != nil {
			return nil, err
		}
		request, err := unix.NewIfreq(name)
		if err != nil {
			return nil, err
		}
		request.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI | unix.IFF_VNET_HDR | flags)
		if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, request); err != nil {
			return nil, err
		}
		if flags != 0 && files.Writer == nil {
			request.SetUint16(unix.IFF_DETACH_QUEUE)
			err = unix.IoctlIfreq(fd, unix.TUNSETQUEUE, request)
		}
		return os.NewFile(uintptr(fd), "/dev/net/tun"), err
	}
	var flags uint16
	if queues > 1 {
		flags = unix.IFF_MULTI_QUEUE
		if files.Writer, err = one(flags); err != nil {
			return files, err
		}
	}
	for range queues {
		q, err := one(flags)
		if err != nil {
			return files, err
		}
		files.Queues = append(files.Queues, q)
	}
	return files, nil
}

// counted is a tunnel that counts what each queue brings.
type counted struct {
	tunnel
	all []*countedQueue
}

type countedQueue struct {
	queue
	packets atomic.Int64
}

func newCounted(t tunnel) *counted {
	c := &counted{tunnel: t}
	for _, q := range t.queues() {
		c.all = append(c.all, &countedQueue{queue: q})
	}
	return c
}

func (c *counted) queues() (out []queue) {
	for _, q := range c.all {
		out = append(out, q)
	}
	return out
}

func (q *countedQueue) count(n int, err error) (int, error) {
	if n > 0 {
		q.packets.Add(1)
	}
	return n, err
}

func (q *countedQueue) Read(p []byte) (int, error)    { return q.count(q.queue.Read(p)) }
func (q *countedQueue) TryRead(p []byte) (int, error) { return q.count(q.queue.TryRead(p)) }

// spread wants packets on many queues: hardly one in a thousand million hashes of 30 flows
// puts three quarters of them on one queue of four.
func (c *counted) spread(t *testing.T) {
	t.Helper()
	var all, most int64
	var each []int64
	for _, q := range c.all {
		n := q.packets.Load()
		each, all, most = append(each, n), all+n, max(most, n)
	}
	t.Logf("packets of each queue: %d", each)
	if all == 0 || most > all*3/4 {
		t.Errorf("packets of each queue: %d, want them spread", each)
	}
}

const (
	bursts   = 30
	perBurst = 16
	flowPort = 9000
)

// numbered returns datagram n of a flow.
func numbered(n int) []byte {
	b := bytes.Repeat([]byte{byte(n)}, 100+n*37%1000)
	binary.BigEndian.PutUint32(b, uint32(n))
	return b
}

// ear wants numbered datagrams of a flow unaltered and in order. Some may be lost: queues
// that TCP fills are full.
type ear struct {
	net.Conn
	name string
	buf  [2000]byte
	next int
	got  int
}

// hear returns the number of the next datagram, or false when none comes before the
// deadline.
func (e *ear) hear(t *testing.T) (int, bool) {
	size, err := e.Read(e.buf[:])
	if err != nil {
		return 0, false
	}
	b := e.buf[:size]
	n := int(binary.BigEndian.Uint32(append(b, 0, 0, 0, 0)))
	switch {
	case n >= bursts*perBurst || !bytes.Equal(b, numbered(n)):
		t.Errorf("%s: altered: %x", e.name, b)
		return 0, false
	case n < e.next:
		t.Errorf("%s: number %d came after %d", e.name, n, e.next-1)
	}
	e.next = n + 1
	e.got++
	return n, true
}

// exchange sends bursts of numbered datagrams from a to b, which sends each back. Both use
// the same two ports for it.
func exchange(t *testing.T, a, b *machine, from, to string, port int) {
	open := func(m *machine, local, remote string) *ear {
		e := &ear{name: fmt.Sprintf("flow %s > %s %d, at %s", from, to, port, local)}
		if err := m.host.Do(func() (err error) {
			at := &net.UDPAddr{IP: net.ParseIP(local), Port: port}
			e.Conn, err = net.DialUDP("udp", at, &net.UDPAddr{IP: net.ParseIP(remote), Port: port})
			return err
		}); err != nil {
			t.Error(err)
			return nil
		}
		return e
	}
	near, far := open(a, from, to), open(b, to, from)
	if near == nil || far == nil {
		return
	}
	var group sync.WaitGroup
	group.Go(func() {
		for {
			n, ok := far.hear(t)
			if !ok {
				return // closed
			}
			_, _ = far.Write(numbered(n)) // a full queue loses it
		}
	})
	for burst := range bursts {
		last := (burst+1)*perBurst - 1
		for n := last + 1 - perBurst; n <= last; n++ {
			_, _ = near.Write(numbered(n))
		}
		_ = near.SetReadDeadline(time.Now().Add(200 * time.Millisecond)) // for a lost one
		for n, ok := near.hear(t); ok && n < last; n, ok = near.hear(t) {
		}
	}
	_ = errors.Join(near.Close(), far.Close())
	group.Wait()
	if near.got < bursts*perBurst/2 {
		t.Errorf("%s: only %d of %d came back", near.name, near.got, bursts*perBurst)
	}
}

func TestFlowsKeepTheirOrderThroughSeveralQueues(t *testing.T) {
	for _, way := range []struct {
		name    string
		v6      bool
		workers int
	}{{"over IPv4", false, 0}, {"over IPv6, with hands", true, 2}} {
		t.Run(way.name, func(t *testing.T) {
			var all []*counted
			like := machine{workers: way.workers, queues: 4, between: func(x tunnel) tunnel {
				all = append(all, newCounted(x))
				return all[len(all)-1]
			}}
			a, b := newMachineLike(t, 1, like), newMachineLike(t, 2, like)
			connect(t, a, b, way.v6, 1500, 1420)
			a.ping(t, "10.0.0.2")
			var group sync.WaitGroup
			for _, pair := range [][2]string{{"10.0.0.1", "10.0.0.2"}, {"fd00::1", "fd00::2"}} {
				for i := range 8 {
					group.Go(func() { exchange(t, a, b, pair[0], pair[1], flowPort+i) })
					group.Go(func() { exchange(t, b, a, pair[1], pair[0], flowPort+100+i) })
				}
				for range 3 {
					group.Go(func() { transfer(t, a, b, pair[1], 2<<20) })
					group.Go(func() { transfer(t, b, a, pair[0], 2<<20) })
				}
			}
			group.Wait()
			for _, c := range all {
				c.spread(t)
			}
		})
	}
}

func TestEndsWhenTheInterfaceIsDeleted(t *testing.T) {
	for _, queues := range []int{1, 4} {
		t.Run(fmt.Sprintf("%d queues", queues), func(t *testing.T) { endWithInterface(t, queues) })
	}
}

func endWithInterface(t *testing.T, queues int) {
	host := sandboxtest.Host(t, "gone")
	var d *Device
	err := host.Do(func() error {
		files, err := openTestTUN("wg0", queues)
		if err != nil {
			return err
		}
		d, err = New(files, "wg0", zerolog.Nop())
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	d.binder = hostBinder{host}
	ended := make(chan error, 1)
	go func() { ended <- d.Run(t.Context()) }()
	for _, args := range [][]string{{"link", "set", "wg0", "up"}, {"link", "del", "wg0"}} {
		if err := host.Run("ip", args...); err != nil {
			t.Fatal(err)
		}
	}
	select {
	case err := <-ended:
		if err == nil {
			t.Error("no error")
		}
	case <-time.After(20 * time.Second):
		t.Fatal("still running")
	}
}
