package wg

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	socketBuffer = 1 << 19 // bytes each way: about twenty trains; more is only delay
	bindAttempts = 10      // to find one port that is free in both families
)

// kernelBinder opens UDP sockets of the kernel.
type kernelBinder struct{}

func (k kernelBinder) open(port uint16, mark uint32) (bound, error) {
	var err error
	for range bindAttempts {
		var b bound
		if b, err = k.openPair(port, mark); err == nil || port != 0 || !errors.Is(err, unix.EADDRINUSE) {
			return b, err
		}
	}
	return bound{}, err
}

// openPair opens one socket per family, on the same port.
func (kernelBinder) openPair(port uint16, mark uint32) (bound, error) {
	b := bound{port: port}
	v4, err4 := openUDP("udp4", b.port, mark)
	if err4 == nil {
		b.v4, b.port = v4, v4.port()
	} else if !errors.Is(err4, unix.EAFNOSUPPORT) {
		return bound{}, err4
	}
	v6, err6 := openUDP("udp6", b.port, mark)
	if err6 == nil {
		b.v6, b.port = v6, v6.port()
	} else if err4 != nil || !(errors.Is(err6, unix.EAFNOSUPPORT) || errors.Is(err6, unix.EADDRNOTAVAIL)) {
		if v4 != nil {
			_ = v4.close()
		}
		return bound{}, err6
	}
	return b, nil
}

// udpSocket is one UDP socket of one family.
type udpSocket struct {
	conn  *net.UDPConn
	raw   syscall.RawConn
	v6    bool
	noGSO atomic.Bool // the device refused a train: send singly from now on

	in inbox // of the one goroutine that receives

	mu   sync.Mutex // guards idle
	idle []*outbox  // each sender has one while it sends: as many as ever sent at once
}

func openUDP(network string, port uint16, mark uint32) (*udpSocket, error) {
	s := &udpSocket{v6: network == "udp6"}
	config := net.ListenConfig{Control: func(_, _ string, raw syscall.RawConn) (err error) {
		controlErr := raw.Control(func(fd uintptr) { err = s.prepare(int(fd), mark) })
		return errors.Join(controlErr, err)
	}}
	conn, err := config.ListenPacket(context.Background(), network, ":"+strconv.Itoa(int(port)))
	if err != nil {
		return nil, err
	}
	s.conn = conn.(*net.UDPConn) // ListenPacket of a UDP network returns nothing else
	if s.raw, err = s.conn.SyscallConn(); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	s.in.init(s.v6)
	return s, nil
}

// prepare sets the options of a new socket. What an older kernel lacks is done without.
func (s *udpSocket) prepare(fd int, mark uint32) error {
	if mark != 0 {
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_MARK, int(mark)); err != nil {
			return fmt.Errorf("set mark: %w", err)
		}
	}
	for _, option := range []struct{ forced, plain int }{
		{unix.SO_RCVBUFFORCE, unix.SO_RCVBUF}, {unix.SO_SNDBUFFORCE, unix.SO_SNDBUF},
	} {
		if unix.SetsockoptInt(fd, unix.SOL_SOCKET, option.forced, socketBuffer) != nil {
			_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, option.plain, socketBuffer)
		}
	}
	_ = unix.SetsockoptInt(fd, unix.IPPROTO_UDP, unix.UDP_GRO, 1)
	if s.v6 {
		_ = unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_RECVTCLASS, 1)
		_ = unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_RECVPKTINFO, 1)
		// Outer packets that are too large for the path are fragmented here, as kernel
		// WireGuard has it (ignore_df): ipv6(7).
		_ = unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_MTU_DISCOVER, unix.IPV6_PMTUDISC_DONT)
		return nil
	}
	// The outer packet may be fragmented on its way, as kernel WireGuard lets it.
	_ = unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_DONT)
	_ = unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_RECVTOS, 1)
	_ = unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_PKTINFO, 1)
	return nil
}

func (s *udpSocket) port() uint16 { return uint16(s.conn.LocalAddr().(*net.UDPAddr).Port) }

func (s *udpSocket) close() error { return s.conn.Close() }

func (s *udpSocket) setMark(mark uint32) (err error) {
	controlErr := s.raw.Control(func(fd uintptr) {
		err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_MARK, int(mark))
	})
	return errors.Join(controlErr, err)
}

// mmsghdr is struct mmsghdr of recvmmsg(2), which x/sys does not have.
type mmsghdr struct {
	unix.Msghdr
	len uint32
}

func (s *udpSocket) receive(in []incoming) (int, error) {
	s.in.begin(in)
	if err := s.raw.Read(s.in.readFn); errors.Is(err, os.ErrDeadlineExceeded) { // see hush
		return 0, os.ErrClosed
	} else if err != nil {
		return 0, err
	}
	if s.in.err != nil {
		return 0, s.in.err
	}
	for i := range s.in.n {
		s.in.finish(i, &in[i])
	}
	return s.in.n, nil
}

// send may be called by several senders at once: the kernel lets datagrams of one socket be
// sent side by side (udp_sendmsg takes the socket's lock for corked ones only).
func (s *udpSocket) send(out []outgoing) error {
	b := s.outbox()
	defer s.putBack(b)
	var last error
	for len(out) > 0 {
		n, err := s.sendSome(b, out)
		if err != nil {
			last = s.rescue(b, &out[n], err)
			n++
		}
		out = out[n:]
	}
	return last
}

// outbox returns one that nobody uses.
func (s *udpSocket) outbox() *outbox {
	s.mu.Lock()
	defer s.mu.Unlock()
	if n := len(s.idle); n > 0 {
		b := s.idle[n-1]
		s.idle = s.idle[:n-1]
		return b
	}
	return newOutbox(s.v6)
}

// putBack takes an outbox that is used no more.
func (s *udpSocket) putBack(b *outbox) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.idle = append(s.idle, b)
}

// sendSome sends messages until one fails, and returns how many went out.
func (s *udpSocket) sendSome(b *outbox, out []outgoing) (int, error) {
	if s.noGSO.Load() {
		for i := range out {
			if out[i].count > 1 {
				if i > 0 {
					return s.sendSome(b, out[:i])
				}
				return 0, unix.EIO // singly, please
			}
		}
	}
	return b.send(s, out[:min(len(out), maxBatch)])
}

// rescue tries another way for a message that was refused. A train is sent singly before
// its local address is doubted: EINVAL may mean either, since older kernels give it for a
// segment larger than the path's MTU; and each of the single ones is rescued in turn.
func (s *udpSocket) rescue(b *outbox, m *outgoing, err error) error {
	if errors.Is(err, net.ErrClosed) {
		return err
	}
	if m.count > 1 {
		if errors.Is(err, unix.EIO) { // no checksum offload on the way out: udp(7), UDP_SEGMENT
			s.noGSO.Store(true)
		}
		return s.sendSingly(b, m)
	}
	if m.to.local.IsValid() && (errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EADDRNOTAVAIL) || errors.Is(err, unix.ENETUNREACH)) {
		if m.peer != nil {
			m.peer.unstick()
		}
		_, err = b.send(s, []outgoing{m.anywhere()})
	}
	return err
}

// anywhere returns the message with the choice of the local address left to the kernel.
func (m *outgoing) anywhere() outgoing {
	retry := *m
	retry.to = &endpoint{remote: m.to.remote}
	return retry
}

// sendSingly sends a train as single datagrams.
func (s *udpSocket) sendSingly(b *outbox, m *outgoing) error {
	singles := make([]outgoing, 0, maxBatch)
	var last error
	flush := func() {
		for rest := singles; len(rest) > 0; {
			n, err := b.send(s, rest)
			if err != nil {
				last = errors.Join(last, s.rescue(b, &rest[n], err))
				n++
			}
			rest = rest[n:]
		}
		singles = singles[:0]
	}
	for _, piece := range m.pieces {
		for len(piece) > 0 {
			n := min(m.segment, len(piece))
			singles = append(singles, outgoing{peer: m.peer, to: m.to, pieces: [][]byte{piece[:n]}, segment: n, size: n, count: 1, ecn: m.ecn})
			piece = piece[n:]
			if len(singles) == maxBatch {
				flush()
			}
		}
	}
	flush()
	return last
}

// recvmmsg and sendmmsg are the system calls. They are raw, as those of the TUN device are:
// none of them waits, and yet some take so long, delivery on this machine included, that Go
// would take the processor away and wake another thread for it. Seen with pings: 0.7 wasted
// wake-ups for each, on its way.
func recvmmsg(fd uintptr, headers []mmsghdr) (int, error) {
	n, _, errno := unix.RawSyscall6(unix.SYS_RECVMMSG, fd, uintptr(unsafe.Pointer(&headers[0])), uintptr(len(headers)), unix.MSG_DONTWAIT, 0, 0)
	if errno != 0 {
		return 0, errno
	}
	return int(n), nil
}

func sendmmsg(fd uintptr, headers []mmsghdr) (int, error) {
	n, _, errno := unix.RawSyscall6(unix.SYS_SENDMMSG, fd, uintptr(unsafe.Pointer(&headers[0])), uintptr(len(headers)), unix.MSG_DONTWAIT, 0, 0)
	if errno != 0 {
		return 0, errno
	}
	return int(n), nil
}
