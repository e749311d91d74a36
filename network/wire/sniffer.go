package wire

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"time"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// buffer is the receive buffer of a sniffer in bytes. The kernel hands over overlay packets
// only, and there should be no overlay packet on an uplink.
const buffer = 4 << 20

// Sniffer sees every overlay packet in clear on an interface, arriving and leaving, from
// the moment it is opened. It must be closed.
type Sniffer struct {
	conn *os.File // a packet socket, which the runtime polls
	link net.Interface
}

// Open opens a sniffer on an interface of the calling thread's network namespace. It needs
// CAP_NET_RAW.
func Open(iface string, f Filter) (*Sniffer, error) {
	link, err := net.InterfaceByName(iface)
	if err != nil {
		return nil, fmt.Errorf("watch %s: %w", iface, err)
	}
	// A cooked socket is given packets from their network header on, with any kind of link
	// header before it. Protocol 0 receives no packet yet: the filter comes first.
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("watch %s: %w", iface, os.NewSyscallError("socket", err))
	}
	conn := os.NewFile(uintptr(fd), "packet socket on "+iface)
	s := &Sniffer{conn: conn, link: *link}
	if err := s.start(f); err != nil {
		return nil, errors.Join(fmt.Errorf("watch %s: %w", iface, err), conn.Close())
	}
	return s, nil
}

func (s *Sniffer) start(f Filter) error {
	program, err := bpf.Assemble(f.Program())
	if err != nil {
		return err
	}
	filter := make([]unix.SockFilter, 0, len(program))
	for _, i := range program {
		filter = append(filter, unix.SockFilter{Code: i.Op, Jt: i.Jt, Jf: i.Jf, K: i.K})
	}
	return s.control(func(fd int) error {
		if err := unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}); err != nil {
			return os.NewSyscallError("setsockopt", err)
		}
		err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, buffer)
		if errors.Is(err, unix.EPERM) {
			err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, buffer)
		}
		if err != nil {
			return os.NewSyscallError("setsockopt", err)
		}
		return os.NewSyscallError("bind", unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: bigEndian(unix.ETH_P_ALL), Ifindex: s.link.Index}))
	})
}

// Run calls see for each packet until ctx is done, and then for every packet that had
// arrived by then. It blocks and returns nil at the end of ctx.
func (s *Sniffer) Run(ctx context.Context, see func(Packet)) error {
	// A deadline in the past ends a waiting read.
	stop := context.AfterFunc(ctx, func() { _ = s.conn.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	buf := make([]byte, 2*keep)
	for {
		n, from, err := s.receive(buf)
		if ctx.Err() != nil {
			if err == nil {
				s.pass(buf[:n], from, see)
			}
			return s.drain(buf, see)
		}
		if errors.Is(err, unix.ENETDOWN) { // the kernel says so when the link goes down
			continue
		}
		if err != nil {
			return fmt.Errorf("watch %s: %w", s.link.Name, err)
		}
		s.pass(buf[:n], from, see)
	}
}

// receive waits for a packet, until the read deadline.
func (s *Sniffer) receive(buf []byte) (n int, from unix.Sockaddr, err error) {
	raw, err := s.conn.SyscallConn()
	if err != nil {
		return 0, nil, err
	}
	var inner error
	err = raw.Read(func(fd uintptr) bool {
		n, from, inner = unix.Recvfrom(int(fd), buf, unix.MSG_DONTWAIT)
		return !errors.Is(inner, unix.EAGAIN) && !errors.Is(inner, unix.EINTR)
	})
	if err != nil {
		return 0, nil, err
	}
	return n, from, os.NewSyscallError("recvfrom", inner)
}

// drain passes on the packets that wait in the socket.
func (s *Sniffer) drain(buf []byte, see func(Packet)) error {
	return s.control(func(fd int) error {
		for {
			n, from, err := unix.Recvfrom(fd, buf, unix.MSG_DONTWAIT)
			switch {
			case errors.Is(err, unix.EAGAIN):
				return nil
			case err != nil:
				return os.NewSyscallError("recvfrom", err)
			}
			s.pass(buf[:n], from, see)
		}
	})
}

func (s *Sniffer) pass(b []byte, from unix.Sockaddr, see func(Packet)) {
	link, ok := from.(*unix.SockaddrLinklayer)
	if !ok {
		return
	}
	if proto := bigEndian(link.Protocol); proto != unix.ETH_P_IP && proto != unix.ETH_P_IPV6 {
		return // some other protocol whose first bytes look like an address
	}
	p, ok := parse(b)
	if !ok {
		return
	}
	p.Interface, p.Outgoing = s.link.Name, link.Pkttype == unix.PACKET_OUTGOING
	see(p)
}

// Missed returns how many packets the kernel dropped since the last call because Run was
// too slow. Silence is a proof only when it is 0.
func (s *Sniffer) Missed() (missed uint32, err error) {
	err = s.control(func(fd int) error {
		stats, err := unix.GetsockoptTpacketStats(fd, unix.SOL_PACKET, unix.PACKET_STATISTICS)
		if err == nil {
			missed = stats.Drops
		}
		return os.NewSyscallError("getsockopt", err)
	})
	return missed, err
}

// Close ends the sniffer.
func (s *Sniffer) Close() error { return s.conn.Close() }

// send puts a packet on the wire, addressed to the interface itself: a switch drops it. A
// packet socket does not see its own packets, so a second socket sends.
func (s *Sniffer) send(packet []byte) error {
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return os.NewSyscallError("socket", err)
	}
	defer unix.Close(fd)
	to := &unix.SockaddrLinklayer{Protocol: bigEndian(unix.ETH_P_IP), Ifindex: s.link.Index, Halen: uint8(len(s.link.HardwareAddr))}
	if packet[0]>>4 == 6 {
		to.Protocol = bigEndian(unix.ETH_P_IPV6)
	}
	copy(to.Addr[:], s.link.HardwareAddr)
	return os.NewSyscallError("sendto", unix.Sendto(fd, packet, 0, to))
}

// control runs fn on the socket's descriptor.
func (s *Sniffer) control(fn func(fd int) error) error {
	raw, err := s.conn.SyscallConn()
	if err != nil {
		return err
	}
	var inner error
	err = raw.Control(func(fd uintptr) { inner = fn(int(fd)) })
	return errors.Join(err, inner)
}

// bigEndian swaps the bytes of a protocol number, as packet(7) wants it.
func bigEndian(v uint16) uint16 { return v<<8 | v>>8 }
