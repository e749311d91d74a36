package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/net/icmp"
	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
	"golang.org/x/sys/unix"
)

// pinger sends echo requests at a fixed pace, whether or not answers come; without a pace
// each waits for the answer to the last. The other pod's kernel answers and this pod's
// says when: a round trip has no program's waking up in it.
type pinger struct {
	conn     *net.IPConn
	v6       bool
	id       uint16
	sent     [maxPings]atomic.Int64 // ns since 1970
	answered chan struct{}
	trips    []time.Duration
}

const maxPings = 60_000 // sequence numbers have 16 bits

// runPings pings for a time and prints p50 and p99 in µs, the loss in per cent, and
// how many answers there were.
func runPings(host, interval, length string) error {
	pause, err := time.ParseDuration(interval)
	if err != nil {
		return err
	}
	limit, err := time.ParseDuration(length)
	if err != nil {
		return err
	}
	p := &pinger{id: uint16(os.Getpid()), answered: make(chan struct{}, 1)}
	if err := p.dial(host); err != nil {
		return err
	}
	defer p.conn.Close()
	received := make(chan error, 1)
	go func() { received <- p.receive() }()
	n, err := p.send(pause, limit)
	_ = p.conn.SetReadDeadline(time.Now().Add(500 * time.Millisecond)) // for answers under way
	if err := errors.Join(err, <-received); err != nil {
		return err
	}
	if len(p.trips) < 100 {
		return fmt.Errorf("%d answers to %d pings are too few", len(p.trips), n)
	}
	slices.Sort(p.trips)
	lost := 100 * float64(n-len(p.trips)) / float64(n)
	fmt.Printf("%.1f %.1f %.2f %d\n", µs(part(p.trips, 0.5)), µs(part(p.trips, 0.99)), lost, len(p.trips))
	return nil
}

// dial opens a raw socket with receive times.
func (p *pinger) dial(host string) error {
	addr, err := netip.ParseAddr(host)
	if err != nil {
		return err
	}
	network := "ip4:icmp"
	if p.v6 = addr.Is6(); p.v6 {
		network = "ip6:ipv6-icmp"
	}
	conn, err := net.Dial(network, host)
	if err != nil {
		return err
	}
	p.conn = conn.(*net.IPConn)
	raw, err := p.conn.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	err = raw.Control(func(fd uintptr) {
		failed = errors.Join(unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_TIMESTAMPNS, 1),
			unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 4<<20))
	})
	return errors.Join(err, failed)
}

// send returns how many requests it sent.
func (p *pinger) send(pause, limit time.Duration) (n int, err error) {
	m := icmp.Message{Type: ipv4.ICMPTypeEcho}
	if p.v6 {
		m.Type = ipv6.ICMPTypeEchoRequest // the kernel sums it
	}
	began := time.Now()
	for n < maxPings && time.Since(began) < limit {
		m.Body = &icmp.Echo{ID: int(p.id), Seq: n, Data: make([]byte, 56)}
		b, err := m.Marshal(nil)
		if err != nil {
			return n, err
		}
		p.sent[n].Store(time.Now().UnixNano())
		if _, err := p.conn.Write(b); err != nil && !errors.Is(err, syscall.ENOBUFS) {
			return n, err
		}
		n++
		if pause == 0 {
			select {
			case <-p.answered:
			case <-time.After(time.Second): // it is lost
			}
			continue
		}
		if due := began.Add(time.Duration(n) * pause); time.Until(due) > 0 {
			wait := unix.NsecToTimespec(time.Until(due).Nanoseconds())
			_ = unix.Nanosleep(&wait, nil) // finer than the runtime's timers; a signal may cut it
		} else {
			began = began.Add(time.Since(due)) // late: no burst to make up for it
			limit -= time.Since(due)
		}
	}
	return n, nil
}

// receive notes answers until the deadline.
func (p *pinger) receive() error {
	b, oob := make([]byte, 256), make([]byte, 256)
	for {
		n, extra, _, _, err := p.conn.ReadMsgIP(b, oob)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return nil
		}
		if err != nil {
			return err
		}
		seq, ok := p.answer(b[:n])
		arrived, stamped := receiveTime(oob[:extra])
		if !ok || !stamped {
			continue
		}
		if sent := p.sent[seq].Swap(0); sent != 0 {
			p.trips = append(p.trips, time.Duration(arrived-sent))
			select {
			case p.answered <- struct{}{}:
			default:
			}
		}
	}
}

// answer returns the sequence number of an echo reply to us.
func (p *pinger) answer(b []byte) (seq int, ok bool) {
	reply := byte(129)
	if !p.v6 {
		reply = 0
		if len(b) < 20 || len(b) < int(b[0]&15)*4 {
			return 0, false
		}
		b = b[int(b[0]&15)*4:] // an IPv4 socket gives the IP header too
	}
	if len(b) < 8 || b[0] != reply || binary.BigEndian.Uint16(b[4:]) != p.id {
		return 0, false
	}
	seq = int(binary.BigEndian.Uint16(b[6:]))
	return seq, seq < maxPings
}

// receiveTime reads when the kernel got a packet, in ns since 1970.
func receiveTime(oob []byte) (ns int64, ok bool) {
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return 0, false
	}
	for _, m := range messages {
		if m.Header.Level == unix.SOL_SOCKET && m.Header.Type == unix.SCM_TIMESTAMPNS && len(m.Data) >= int(unsafe.Sizeof(unix.Timespec{})) {
			return int64(binary.NativeEndian.Uint64(m.Data))*1e9 + int64(binary.NativeEndian.Uint64(m.Data[8:])), true
		}
	}
	return 0, false
}
