package conn

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
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/loden-net/loden/backend/engine/fd"
)

const (
	// sendBuffer bounds the datagrams of all peers that wait on the way out, in bytes; the kernel
	// doubles it for its own overhead. It is larger than the queue of any uplink (fq_codel: 32 MiB), so
	// that the queue of a slow uplink is full, and drops, before the peers behind other uplinks find no
	// room: as with kernel WireGuard, which has no buffer here at all.
	sendBuffer   = 32 << 20
	bindAttempts = 10 // to find a port that is free in both families
)

// Open opens a socket for each address family that the host has, both on the same port and in the
// network namespace of the calling thread. Their datagrams carry the firewall mark. With port 0 the
// kernel chooses the port. The caller closes the sockets.
func Open(port uint16, mark uint32) (Pair, error) {
	var err error
	for range bindAttempts {
		var p Pair
		if p, err = openPair(port, mark); err == nil || port != 0 || !errors.Is(err, unix.EADDRINUSE) {
			return p, err
		}
	}
	return Pair{}, err
}

// openPair makes a single attempt for Open.
func openPair(port uint16, mark uint32) (Pair, error) {
	p := Pair{Port: port}
	v4, err4 := openUDP("udp4", p.Port, mark)
	if err4 == nil {
		p.V4, p.Port = v4, v4.port()
	} else if !errors.Is(err4, unix.EAFNOSUPPORT) {
		return Pair{}, err4
	}
	v6, err6 := openUDP("udp6", p.Port, mark)
	if err6 == nil {
		p.V6, p.Port = v6, v6.port()
	} else if err4 != nil || !(errors.Is(err6, unix.EAFNOSUPPORT) || errors.Is(err6, unix.EADDRNOTAVAIL)) {
		p.Close()
		return Pair{}, err6
	}
	return p, nil
}

// Socket is a UDP socket of one address family. A single goroutine at a time may receive; any
// number of goroutines may send.
type Socket struct {
	conn  *net.UDPConn
	raw   syscall.RawConn
	v6    bool
	noGSO atomic.Bool // a network device refused a train: the socket sends single datagrams from then on

	narrow narrowPaths

	in     receiveBuffers // of the goroutine that receives
	buffer receiveBuffer  // likewise
	born   time.Time      // the zero of buffer's clock

	full atomic.Uint64 // datagrams dropped because the send buffer had no room

	mu   sync.Mutex     // guards idle
	idle []*sendBuffers // a sender takes a buffer set while it sends: there are as many as ever sent at once
}

func openUDP(network string, port uint16, mark uint32) (*Socket, error) {
	s := &Socket{v6: network == "udp6", born: time.Now(), buffer: newReceiveBuffer()}
	config := net.ListenConfig{Control: func(_, _ string, raw syscall.RawConn) (err error) {
		controlErr := raw.Control(func(fd uintptr) { err = s.prepare(int(fd), mark) })
		return errors.Join(controlErr, err)
	}}
	packets, err := config.ListenPacket(context.Background(), network, ":"+strconv.Itoa(int(port)))
	if err != nil {
		return nil, err
	}
	s.conn = packets.(*net.UDPConn) // the type that ListenPacket returns for a UDP network
	if s.raw, err = s.conn.SyscallConn(); err != nil {
		return nil, errors.Join(err, packets.Close())
	}
	s.in.init(s.v6)
	return s, nil
}

// prepare sets the options of a new socket. The socket works without the options that an older
// kernel lacks.
func (s *Socket) prepare(fd int, mark uint32) error {
	if mark != 0 {
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_MARK, int(mark)); err != nil {
			return fmt.Errorf("set mark: %w", err)
		}
	}
	setBuffer(fd, unix.SO_RCVBUFFORCE, unix.SO_RCVBUF, largestBuffer)
	setBuffer(fd, unix.SO_SNDBUFFORCE, unix.SO_SNDBUF, sendBuffer)
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

// setBuffer sets the size of a buffer in bytes, beyond the system's limit where the process may.
func setBuffer(fd, forced, plain, size int) {
	if unix.SetsockoptInt(fd, unix.SOL_SOCKET, forced, size) != nil {
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, plain, size)
	}
}

// Adopt uses a socket that another process opened, with the options that the socket has. It
// works on a descriptor of its own: the caller closes file.
func Adopt(file *os.File, v6 bool) (*Socket, error) {
	packets, err := net.FilePacketConn(file)
	if err != nil {
		return nil, fmt.Errorf("use UDP socket: %w", err)
	}
	udp, ok := packets.(*net.UDPConn)
	if !ok {
		return nil, errors.Join(errors.New("use UDP socket: the file is not a UDP socket"), packets.Close())
	}
	s := &Socket{conn: udp, v6: v6, born: time.Now(), buffer: newReceiveBuffer()}
	if s.raw, err = udp.SyscallConn(); err != nil {
		return nil, errors.Join(err, udp.Close())
	}
	s.in.init(s.v6)
	// The process before may be of a version that had smaller buffers.
	err = fd.ControlRaw(s.raw, func(fd int) error {
		setBuffer(fd, unix.SO_RCVBUFFORCE, unix.SO_RCVBUF, largestBuffer)
		setBuffer(fd, unix.SO_SNDBUFFORCE, unix.SO_SNDBUF, sendBuffer)
		return nil
	})
	if err != nil {
		return nil, errors.Join(err, udp.Close())
	}
	return s, nil
}

// Duplicate returns a second descriptor of the socket, for another process. The caller closes it.
func (s *Socket) Duplicate() (*os.File, error) {
	copied, err := fd.Duplicate(s.conn)
	if err != nil {
		return nil, fmt.Errorf("duplicate UDP socket: %w", err)
	}
	return os.NewFile(uintptr(copied), ""), nil
}

func (s *Socket) port() uint16 { return uint16(s.conn.LocalAddr().(*net.UDPAddr).Port) }

// Close closes the socket. A Receive that waits returns net.ErrClosed.
func (s *Socket) Close() error { return s.conn.Close() }

// StopReceiving makes every Receive return os.ErrClosed, now and later. Sending goes on.
func (s *Socket) StopReceiving() { _ = s.conn.SetReadDeadline(time.Unix(1, 0)) } // fails on a closed socket only

// DisableSegmentation makes the socket send single datagrams (no UDP_SEGMENT) from then on.
func (s *Socket) DisableSegmentation() { s.noGSO.Store(true) }

// SegmentationRefused reports whether the socket sends single datagrams because a network device
// refused a train, or because DisableSegmentation was called.
func (s *Socket) SegmentationRefused() bool { return s.noGSO.Load() }

// PathsChanged makes the socket try trains again to addresses whose paths were too narrow for them.
func (s *Socket) PathsChanged() { s.narrow.forget() }

// TrainsRefused returns how many trains the kernel refused because their datagrams were larger than the
// MTU of the path. Their datagrams were sent singly.
func (s *Socket) TrainsRefused() uint64 { return s.narrow.refusals.Load() }

// DisableJoining makes the socket receive single datagrams (no UDP_GRO) from then on.
func (s *Socket) DisableJoining() error {
	return fd.ControlRaw(s.raw, func(fd int) error { return unix.SetsockoptInt(fd, unix.IPPROTO_UDP, unix.UDP_GRO, 0) })
}

// SetMark gives the firewall mark to the datagrams that the socket sends from then on.
func (s *Socket) SetMark(mark uint32) error {
	return fd.ControlRaw(s.raw, func(fd int) error { return unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_MARK, int(mark)) })
}

// Receive waits for datagrams, fills in as many entries of in as datagrams are there, and
// returns how many. It returns net.ErrClosed after Close and os.ErrClosed after StopReceiving.
func (s *Socket) Receive(in []Incoming) (int, error) {
	s.in.begin(in)
	if err := s.raw.Read(s.in.readFn); errors.Is(err, os.ErrDeadlineExceeded) { // see StopReceiving
		return 0, os.ErrClosed
	} else if err != nil {
		return 0, err
	}
	if s.in.err != nil {
		return 0, s.in.err
	}
	received := 0
	for i := range s.in.n {
		s.in.finish(i, &in[i])
		received += in[i].Size
	}
	s.adjustBuffer(received)
	return s.in.n, nil
}

// adjustBuffer sets the receive buffer to the size that is right after a Receive of so many bytes.
func (s *Socket) adjustBuffer(received int) {
	if s.in.waited && s.buffer.rests(received) {
		return
	}
	if s.buffer.step(time.Since(s.born), received, s.in.waited, s.waiting) {
		_ = fd.ControlRaw(s.raw, func(fd int) error { // fails on a closed socket only
			setBuffer(fd, unix.SO_RCVBUFFORCE, unix.SO_RCVBUF, s.buffer.size)
			return nil
		})
	}
}

// waiting returns how many bytes of the receive buffer are in use, in the unit of SO_RCVBUF.
func (s *Socket) waiting() int {
	info, err := s.memory()
	if err != nil {
		return 0 // the socket is closed
	}
	return int(info[unix.SK_MEMINFO_RMEM_ALLOC] / 2)
}

// memory asks the kernel for the memory of the socket: SO_MEMINFO.
func (s *Socket) memory() (info [unix.SK_MEMINFO_VARS]uint32, err error) {
	size := uint32(unsafe.Sizeof(info))
	err = fd.ControlRaw(s.raw, func(fd int) error {
		_, _, errno := unix.RawSyscall6(unix.SYS_GETSOCKOPT, uintptr(fd), unix.SOL_SOCKET, unix.SO_MEMINFO,
			uintptr(unsafe.Pointer(&info)), uintptr(unsafe.Pointer(&size)), 0)
		if errno != 0 {
			return errno
		}
		return nil
	})
	return info, err
}

// Drops returns how many datagrams the socket dropped because its send buffer had no room, and how
// many the kernel dropped because its receive buffer had none.
func (s *Socket) Drops() (sendFull, receiveFull uint64) {
	if info, err := s.memory(); err == nil {
		receiveFull = uint64(info[unix.SK_MEMINFO_DROPS])
	}
	return s.full.Load(), receiveFull
}
