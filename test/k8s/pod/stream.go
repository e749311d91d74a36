package main

import (
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"time"
)

// Flow is the account of a stream. A packet is lost when it, or its answer, did not come.
type Flow struct {
	Sent  int           `json:"sent"`
	Lost  int           `json:"lost"`
	Pause time.Duration `json:"pause"` // longest time without an answer
}

const (
	packetSize = 200             // bytes of UDP payload: the number, then zeros
	grace      = 2 * time.Second // how long the last packets may be under way
)

// Echo sends every packet back, until the connection is closed.
func Echo(conn net.PacketConn) error {
	buf := make([]byte, 1500)
	for {
		n, from, err := conn.ReadFrom(buf)
		if err != nil {
			return err
		}
		_, _ = conn.WriteTo(buf[:n], from) // an answer that cannot be sent is a lost packet
	}
}

// Stream sends rate numbered packets a second to an echo until ctx is done, then waits for
// what is under way. What the kernel does not take is lost like the rest: streams outlive
// routes.
func Stream(ctx context.Context, to string, rate int) (Flow, error) {
	conn, err := net.Dial("udp", to)
	if err != nil {
		return Flow{}, fmt.Errorf("stream to %s: %w", to, err)
	}
	defer conn.Close()
	type answers struct {
		seen  map[uint64]bool
		pause time.Duration
	}
	got, stop := make(chan answers, 1), make(chan struct{})
	go func() {
		seen, pause := receive(conn, stop)
		got <- answers{seen, pause}
	}()
	sent := send(ctx, conn, rate)
	_ = conn.SetReadDeadline(time.Now().Add(grace)) // lets the receiver end
	close(stop)
	a := <-got
	return Flow{Sent: sent, Lost: sent - len(a.seen), Pause: a.pause}, nil
}

// send returns how many packets it sent, or tried to.
func send(ctx context.Context, conn net.Conn, rate int) int {
	packet := make([]byte, packetSize)
	tick := time.NewTicker(time.Second / time.Duration(rate))
	defer tick.Stop()
	for sent := 0; ; sent++ {
		select {
		case <-ctx.Done():
			return sent
		case <-tick.C:
		}
		binary.BigEndian.PutUint64(packet, uint64(sent))
		_, _ = conn.Write(packet)
	}
}

// receive notes the numbers that come back until the connection's deadline, which is set
// before stop is closed. The wait for that deadline is not a pause.
func receive(conn net.Conn, stop <-chan struct{}) (map[uint64]bool, time.Duration) {
	seen := map[uint64]bool{}
	buf := make([]byte, packetSize+1)
	last, pause := time.Now(), time.Duration(0)
	for {
		n, err := conn.Read(buf)
		switch {
		case err == nil && n == packetSize:
			now := time.Now()
			pause, last = max(pause, now.Sub(last)), now
			seen[binary.BigEndian.Uint64(buf)] = true
		case err != nil: // the deadline, or an ICMP error while there is no route
			select {
			case <-stop:
				return seen, pause
			case <-time.After(time.Millisecond):
			}
		}
	}
}
