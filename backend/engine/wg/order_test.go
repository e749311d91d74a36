package wg

import (
	"bytes"
	"testing"
	"time"

	"github.com/loden-net/loden/backend/engine/wg/conn"
)

// gate is a socket whose first send waits until a second one comes, or does not.
type gate struct {
	memorySocket
	second func()
	sizes  chan int // of every send, in the order in which they end
	sent   int
}

func (g *gate) Send(out []conn.Outgoing) error {
	if g.sent++; g.sent == 1 {
		done := make(chan struct{})
		go func() { defer close(done); g.second() }()
		select {
		case <-done: // nothing held it back
		case <-time.After(50 * time.Millisecond):
		}
		defer func() { go func() { <-done; close(g.sizes) }() }()
	}
	g.sizes <- out[0].Size
	out[0].Sent = out[0].Size
	return nil
}

func TestPacketsThatWaitedAreNotOvertakenByAnotherSender(t *testing.T) {
	d, _, _ := tunnelEnds(t)
	x, y := blank(t, "x", 1), blank(t, "y", 2)
	packet := func(size int) []byte {
		return append(make([]byte, 10), datagram(x, y, 0, bytes.Repeat([]byte{7}, size))...)
	}
	second := newSender(d)
	g := &gate{sizes: make(chan int, 8), second: func() {
		second.packet(packet(900))
		second.flush()
	}}
	d.sockets.Store(&bound{v4: g})
	p := onlyPeer(d)
	p.Stage(packet(100), d.now())
	newSender(d).flushStaged(p)
	var got []int
	for n := range g.sizes {
		got = append(got, n)
	}
	if len(got) != 2 || got[0] > got[1] {
		t.Errorf("messages of %d bytes, want the small one first, which waited", got)
	}
	if p.HasStaged() {
		t.Error("something is staged")
	}
}
