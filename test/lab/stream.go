package lab

import (
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/loden-net/loden/config/opt"
)

// Stream is a paced sequence of numbered UDP packets from a pod to another pod.
type Stream struct {
	From, To *Pod
	Family   opt.Family
	Rate     int // packets per second
	Least    int // packets to send even when the context ends earlier
}

// Flow is the account of a stream.
type Flow struct {
	Sent, Received int
	Doubled        int           // received more than once
	Lost           []uint64      // numbers of the packets that never came, the first 20
	Gap            time.Duration // longest time without a packet at the receiver
}

const (
	streamSize  = 200             // bytes of UDP payload
	streamBurst = 20              // most packets sent at once after a wait for the processor
	streamGrace = 3 * time.Second // how long the last packets may be under way
)

// Run sends until ctx is done and Least packets are out, then waits for the packets under way.
// Packets that the sender could not hand to the kernel are not counted as sent, but are an
// error.
func (s Stream) Run(ctx context.Context) (Flow, error) {
	to, ok := s.To.Addrs.Of(s.Family).Get()
	local, ok2 := s.From.Addrs.Of(s.Family).Get()
	if !ok || !ok2 {
		return Flow{}, fmt.Errorf("stream %s to %s: no %s address", s.From.Name, s.To.Name, s.Family)
	}
	receiver, err := listenUDP(ctx, s.To.Host, netip.AddrPortFrom(to, 0))
	if err != nil {
		return Flow{}, err
	}
	defer receiver.Close()
	_ = receiver.SetReadBuffer(8 << 20) // as much as the kernel allows
	sender, err := listenUDP(ctx, s.From.Host, netip.AddrPortFrom(local, 0))
	if err != nil {
		return Flow{}, err
	}
	defer sender.Close()
	return s.run(ctx, sender, receiver)
}

func (s Stream) run(ctx context.Context, sender, receiver *net.UDPConn) (Flow, error) {
	var sent int
	seen := map[uint64]int{}
	var gap time.Duration
	var group errgroup.Group
	group.Go(func() (err error) {
		sent, err = s.send(ctx, sender, receiver.LocalAddr().(*net.UDPAddr).AddrPort())
		_ = receiver.SetReadDeadline(time.Now().Add(streamGrace)) // lets the receiver end
		return err
	})
	group.Go(func() (err error) {
		gap, err = receive(receiver, seen)
		return err
	})
	err := group.Wait()
	flow := Flow{Sent: sent, Received: len(seen), Gap: gap}
	for _, times := range seen {
		flow.Doubled += times - 1
	}
	for n := uint64(0); n < uint64(sent) && len(flow.Lost) < 20; n++ {
		if seen[n] == 0 {
			flow.Lost = append(flow.Lost, n)
		}
	}
	return flow, err
}

// send sends at the stream's rate until ctx is done, but at least Least, and returns how
// many it sent.
func (s Stream) send(ctx context.Context, conn *net.UDPConn, to netip.AddrPort) (int, error) {
	packet := make([]byte, streamSize)
	copy(packet[8:], marker)
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	sent, last, due := 0, time.Now(), 0.0
	for ctx.Err() == nil || sent < s.Least {
		now := <-tick.C
		due = min(due+now.Sub(last).Seconds()*float64(s.Rate), streamBurst)
		last = now
		for ; due >= 1; due-- {
			binary.BigEndian.PutUint64(packet, uint64(sent))
			if _, err := conn.WriteToUDPAddrPort(packet, to); err != nil {
				return sent, fmt.Errorf("send packet %d: %w", sent, err)
			}
			sent++
		}
	}
	return sent, nil
}

// receive counts numbered packets until the connection's read deadline and returns the
// longest time between two of them.
func receive(conn *net.UDPConn, seen map[uint64]int) (gap time.Duration, err error) {
	buf := make([]byte, streamSize)
	last := time.Now()
	for {
		n, err := conn.Read(buf)
		if err != nil { // the deadline, or the end of the lab
			return gap, nil
		}
		now := time.Now()
		gap, last = max(gap, now.Sub(last)), now
		if n == streamSize {
			seen[binary.BigEndian.Uint64(buf)]++
		}
	}
}
