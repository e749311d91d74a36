package soak_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// flow is traffic from a node to another that never ends: TCP, or UDP. Its bytes are
// computed from its number on both ends.
type flow struct {
	w        *world
	number   int
	a, b     *node
	tcp, v6  bool
	got      atomic.Uint64 // bytes of TCP, datagrams of UDP, that arrived and were right
	sent     atomic.Uint64 // datagrams
	seen     []uint64      // datagrams, a bit for each
	stop     context.CancelFunc
	running  sync.WaitGroup
	closeAll []io.Closer // the receiving end
}

func (f *flow) String() string {
	name := map[bool]string{true: "TCP", false: "UDP"}[f.tcp] + map[bool]string{true: "6", false: "4"}[f.v6]
	return fmt.Sprintf("%s %d→%d", name, f.a.n, f.b.n)
}

// startTraffic starts both protocols in both families from everybody to everybody.
func (w *world) startTraffic() {
	for _, a := range w.nodes {
		for _, b := range w.others(a) {
			for kind := range 4 {
				f := &flow{w: w, number: len(w.flows), a: a, b: b, tcp: kind&1 == 1, v6: kind&2 == 2}
				w.flows = append(w.flows, f)
				f.start()
			}
		}
	}
	w.t.Cleanup(w.stopTraffic)
}

func (w *world) stopTraffic() {
	for _, f := range w.flows {
		f.stop()
		for _, c := range f.closeAll {
			_ = c.Close()
		}
	}
	for _, f := range w.flows {
		f.running.Wait()
	}
}

// carried returns how many bytes or datagrams have arrived.
func (w *world) carried() (tcp, udp, sent uint64) {
	for _, f := range w.flows {
		if f.tcp {
			tcp += f.got.Load()
		} else {
			udp += f.got.Load()
			sent += f.sent.Load()
		}
	}
	return tcp, udp, sent
}

func (f *flow) address() string {
	host := fmt.Sprintf("10.0.0.%d", f.b.n)
	if f.v6 {
		host = fmt.Sprintf("fd00::%d", f.b.n)
	}
	return net.JoinHostPort(host, fmt.Sprint(7000+f.number))
}

func (f *flow) start() {
	ctx, cancel := context.WithCancel(context.Background())
	f.stop = cancel
	send, receive := f.sendDatagrams, f.receiveDatagrams
	if f.tcp {
		send, receive = f.sendStreams, f.receiveStreams
	}
	f.w.must(receive())
	f.running.Go(func() { send(ctx) })
}

// bytes is the flow's own endless bytes for a connection or datagram.
func (f *flow) bytes(which uint64) *rand.ChaCha8 {
	var seed [32]byte
	binary.BigEndian.PutUint64(seed[:], uint64(f.number))
	binary.BigEndian.PutUint64(seed[8:], which)
	return rand.NewChaCha8(seed)
}

// wait is false when the flow is to end.
func wait(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}

// sendStreams writes to a sequence of connections; a connection is ended by the test,
// or by an accident that no TCP survives.
func (f *flow) sendStreams(ctx context.Context) {
	for which := uint64(1); ctx.Err() == nil; which++ {
		var c net.Conn
		err := f.a.host.Do(func() (err error) {
			c, err = (&net.Dialer{Timeout: 5 * time.Second}).DialContext(ctx, "tcp", f.address())
			return err
		})
		if err == nil {
			forget := context.AfterFunc(ctx, func() { _ = c.Close() })
			err = f.sendStream(ctx, c, which)
			forget()
			_ = c.Close()
		}
		if ctx.Err() == nil && err != nil {
			f.w.t.Logf("%v: connection %d: %v", f, which, err)
			wait(ctx, 100*time.Millisecond)
		}
	}
}

// sendStream writes pieces of all sizes, at 1 or 2 MB a second.
func (f *flow) sendStream(ctx context.Context, c net.Conn, which uint64) error {
	if err := binary.Write(c, binary.BigEndian, which); err != nil {
		return err
	}
	content, dice := f.bytes(which), rand.New(rand.NewPCG(which, uint64(f.number)))
	b := make([]byte, 256<<10)
	for {
		piece := b[:1+dice.IntN(len(b))>>dice.IntN(10)]
		_, _ = content.Read(piece) // never fails
		if _, err := c.Write(piece); err != nil {
			return err
		}
		if !wait(ctx, 20*time.Millisecond) {
			return nil
		}
	}
}

// receiveStreams checks every byte of every connection.
func (f *flow) receiveStreams() error {
	var l net.Listener
	err := f.b.host.Do(func() (err error) {
		l, err = net.Listen("tcp", f.address())
		return err
	})
	if err != nil {
		return err
	}
	f.closeAll = append(f.closeAll, l)
	f.running.Go(func() {
		var open sync.WaitGroup
		defer open.Wait()
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			open.Go(func() {
				defer c.Close()
				f.receiveStream(c)
			})
		}
	})
	return nil
}

func (f *flow) receiveStream(c net.Conn) {
	var which uint64
	if binary.Read(c, binary.BigEndian, &which) != nil {
		return
	}
	content := f.bytes(which)
	b, want := make([]byte, 64<<10), make([]byte, 64<<10)
	for at := 0; ; {
		_ = c.SetReadDeadline(time.Now().Add(2 * recoverWithin)) // nobody else ends it
		n, err := c.Read(b)
		_, _ = content.Read(want[:n])
		if !bytes.Equal(b[:n], want[:n]) {
			f.w.t.Errorf("%v: connection %d is altered after byte %d", f, which, at)
			return
		}
		at += n
		f.got.Add(uint64(n))
		if err != nil {
			return
		}
	}
}

// sendDatagrams sends bursts of datagrams of all sizes that fit every MTU.
func (f *flow) sendDatagrams(ctx context.Context) {
	const head, most = 8, 1280 - 48
	var c net.Conn
	err := f.a.host.Do(func() (err error) {
		c, err = net.Dial("udp", f.address())
		return err
	})
	if err != nil {
		f.w.t.Error(err)
		return
	}
	defer c.Close()
	dice := rand.New(rand.NewPCG(1, uint64(f.number)))
	for which := uint64(0); wait(ctx, 20*time.Millisecond); {
		size := head + dice.IntN(most-head+1)
		for range 1 << dice.IntN(6) {
			b := make([]byte, size)
			binary.BigEndian.PutUint64(b, which)
			_, _ = f.bytes(which).Read(b[head:])
			if _, err := c.Write(b); err == nil { // refused while there is no way
				f.sent.Add(1)
			}
			which++
		}
	}
}

// receiveDatagrams checks every datagram, and that none comes twice.
func (f *flow) receiveDatagrams() error {
	var c net.PacketConn
	err := f.b.host.Do(func() (err error) {
		c, err = net.ListenPacket("udp", f.address())
		return err
	})
	if err != nil {
		return err
	}
	f.closeAll = append(f.closeAll, c)
	f.running.Go(func() {
		b := make([]byte, 2048)
		for {
			n, _, err := c.ReadFrom(b)
			if err != nil {
				return
			}
			f.receiveDatagram(b[:n])
		}
	})
	return nil
}

func (f *flow) receiveDatagram(b []byte) {
	if len(b) < 8 {
		f.w.t.Errorf("%v: a datagram of %d bytes", f, len(b))
		return
	}
	which := binary.BigEndian.Uint64(b)
	want := make([]byte, len(b)-8)
	_, _ = f.bytes(which).Read(want)
	if !bytes.Equal(b[8:], want) {
		f.w.t.Errorf("%v: datagram %d is altered", f, which)
		return
	}
	for uint64(len(f.seen)) <= which/64 {
		f.seen = append(f.seen, 0)
	}
	if bit := uint64(1) << (which % 64); f.seen[which/64]&bit != 0 {
		f.w.t.Errorf("%v: datagram %d came twice", f, which)
	} else {
		f.seen[which/64] |= bit
	}
	f.got.Add(1)
}
