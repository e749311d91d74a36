package lab

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/net/icmp"
	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"

	"github.com/loden-net/loden/config/opt"
	"github.com/loden-net/loden/test/sandbox"
)

// echoer sends ICMP echoes of a family from a host, any number at once, through a single socket.
// Close it.
type echoer struct {
	host   *sandbox.Host
	conn   *icmp.PacketConn
	proto  int       // for parsing: 1 or 58
	ask    icmp.Type // type of a question
	answer icmp.Type // type of an answer
	id     int
	size   int // bytes of an echo's data

	mu      sync.Mutex // guards all below
	next    uint16
	waiting map[uint16]question
}

// question is an echo without an answer so far.
type question struct {
	data []byte
	sent time.Time
	took chan time.Duration // has room for the answer
}

// newEchoer opens a socket on a host. size is of the whole IP packet in bytes.
func newEchoer(host *sandbox.Host, family opt.Family, size int) (*echoer, error) {
	e := &echoer{
		host: host, proto: 1, ask: ipv4.ICMPTypeEcho, answer: ipv4.ICMPTypeEchoReply,
		id: rand.IntN(1 << 16), size: size - 20 - 8, waiting: map[uint16]question{},
	}
	network := "ip4:icmp"
	if family == opt.V6 {
		network, e.proto, e.size = "ip6:ipv6-icmp", 58, size-40-8
		e.ask, e.answer = ipv6.ICMPTypeEchoRequest, ipv6.ICMPTypeEchoReply
	}
	err := host.Do(func() (err error) {
		e.conn, err = icmp.ListenPacket(network, "")
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("open echo socket on %s: %w", host.Name, err)
	}
	return e, nil
}

// Close ends run.
func (e *echoer) Close() error { return e.conn.Close() }

// run hands answers to their questions until Close.
func (e *echoer) run() {
	buf := make([]byte, 64<<10)
	for {
		n, _, err := e.conn.ReadFrom(buf)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		now := time.Now()
		got, err := icmp.ParseMessage(e.proto, buf[:max(n, 0)])
		if err != nil || got.Type != e.answer {
			continue
		}
		if echo, ok := got.Body.(*icmp.Echo); ok && echo.ID == e.id {
			e.hand(uint16(echo.Seq), echo.Data, now)
		}
	}
}

func (e *echoer) hand(sequence uint16, data []byte, now time.Time) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if q, ok := e.waiting[sequence]; ok && bytes.Equal(q.data, data) {
		q.took <- now.Sub(q.sent)
		delete(e.waiting, sequence)
	}
}

// once sends an echo and waits for its answer, for at most limit.
func (e *echoer) once(ctx context.Context, to netip.Addr, limit time.Duration) (time.Duration, error) {
	data := append([]byte(marker), make([]byte, max(8, e.size-len(marker)))...)
	binary.BigEndian.PutUint64(data[len(marker):], rand.Uint64())
	q := question{data: data, took: make(chan time.Duration, 1)}
	sequence := e.register(&q)
	defer e.forget(sequence)
	message := icmp.Message{Type: e.ask, Body: &icmp.Echo{ID: e.id, Seq: int(sequence), Data: data}}
	packet, err := message.Marshal(nil) // the kernel fills in ICMPv6's checksum
	if err != nil {
		return 0, err
	}
	if _, err := e.conn.WriteTo(packet, &net.IPAddr{IP: to.AsSlice()}); err != nil {
		return 0, err
	}
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case took := <-q.took:
		return took, nil
	case <-timer.C:
		return 0, errors.New("no answer")
	case <-ctx.Done():
		return 0, ctx.Err()
	}
}

func (e *echoer) register(q *question) uint16 {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.next++
	q.sent = time.Now()
	e.waiting[e.next] = *q
	return e.next
}

func (e *echoer) forget(sequence uint16) {
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.waiting, sequence)
}

// until repeats an echo until it is answered or ctx is done, and returns how long the answered one
// took.
func (e *echoer) until(ctx context.Context, to netip.Addr) (time.Duration, error) {
	for {
		sent := time.Now()
		took, err := e.once(ctx, to, retry)
		if err == nil {
			return took, nil
		}
		if !pause(ctx, time.Until(sent.Add(retry))) {
			return 0, fmt.Errorf("ping %s from %s: %w: %w", to, e.host.Name, ctx.Err(), err)
		}
	}
}
