package probe

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/loden-net/loden/config/opt"
)

// Port is the UDP port of the service on the overlay address of every node. It lies below
// the ephemeral ports and outside Kubernetes' node ports.
const Port = 15276

// arrival is a datagram, or the news that the host of a peer refused a datagram.
type arrival struct {
	from    netip.Addr // of a refusal: the receiver of the refused datagram
	data    []byte     // of a refusal: the beginning of the refused datagram
	refused bool       // the port of the peer is closed
}

// conn sends and receives the datagrams of a family. Receive blocks until a datagram, or
// until Close.
type conn interface {
	Send(to netip.Addr, datagram []byte) error
	Receive() (arrival, error)
	Close() error
	Stale() bool // the interface was replaced since the conn was opened
}

// socket is a UDP socket that is bound to the node's overlay address and to the tunnel's
// interface: datagrams from pods of this node and from the uplinks do not reach it.
type socket struct {
	udp    *net.UDPConn
	raw    syscall.RawConn
	family opt.Family
	iface  string
	index  int
	buffer []byte

	refusals []arrival // that Receive has not returned yet; of the goroutine that calls it
}

// maxDatagram is more than an overlay packet holds, bytes.
const maxDatagram = 1 << 16

// openSocket opens the socket of a family. The caller closes it.
func openSocket(iface string, addr netip.Addr) (conn, error) {
	s := &socket{family: opt.FamilyOf(addr), iface: iface, buffer: make([]byte, maxDatagram)}
	lc := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		var failed error
		err := c.Control(func(fd uintptr) { failed = s.prepare(int(fd)) })
		return errors.Join(err, failed)
	}}
	network := map[opt.Family]string{opt.V4: "udp4", opt.V6: "udp6"}[s.family]
	pc, err := lc.ListenPacket(context.Background(), network, netip.AddrPortFrom(addr, Port).String())
	if err != nil {
		return nil, fmt.Errorf("open UDP port %d of %s on %s: %w", Port, addr, iface, err)
	}
	s.udp = pc.(*net.UDPConn) // the network is udp4 or udp6
	if s.raw, err = s.udp.SyscallConn(); err != nil {
		return nil, errors.Join(fmt.Errorf("open UDP port %d: %w", Port, err), s.udp.Close())
	}
	return s, nil
}

// The sizes of the socket's buffers, bytes. Packets for 64 peers without a session wait in the
// kernel's WireGuard at the same time.
const (
	receiveBuffer = 1 << 20
	sendBuffer    = 4 << 20
)

// prepare sets the options before the socket is bound.
func (s *socket) prepare(fd int) (err error) {
	if s.index, err = indexOf(fd, s.iface); err != nil {
		return fmt.Errorf("find interface %s: %w", s.iface, err)
	}
	if err := unix.SetsockoptString(fd, unix.SOL_SOCKET, unix.SO_BINDTODEVICE, s.iface); err != nil {
		return fmt.Errorf("bind to interface %s: %w", s.iface, err)
	}
	_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, receiveBuffer) // without the right the default size stands
	_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, sendBuffer)
	level, discover, probe, errs := unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_PROBE, unix.IP_RECVERR
	if s.family == opt.V6 {
		level, discover, probe, errs = unix.IPPROTO_IPV6, unix.IPV6_MTU_DISCOVER, unix.IPV6_PMTUDISC_PROBE, unix.IPV6_RECVERR
	}
	// The packets are not fragmented, whatever the kernel thinks of the path: ip(7), IP_PMTUDISC_PROBE.
	if err := unix.SetsockoptInt(fd, level, discover, probe); err != nil {
		return fmt.Errorf("forbid fragments: %w", err)
	}
	if err := unix.SetsockoptInt(fd, level, errs, 1); err != nil {
		return fmt.Errorf("ask for ICMP errors: %w", err)
	}
	return nil
}

// indexOf returns the index of an interface.
func indexOf(fd int, name string) (int, error) {
	request, err := unix.NewIfreq(name)
	if err != nil {
		return 0, err
	}
	if err := unix.IoctlIfreq(fd, unix.SIOCGIFINDEX, request); err != nil {
		return 0, err
	}
	return int(request.Uint32()), nil
}

// Send sends a datagram to the port of a peer. It does not block: the kernel's WireGuard keeps
// packets for peers without a session, and counts them as unsent.
func (s *socket) Send(to netip.Addr, datagram []byte) error {
	var address unix.Sockaddr = &unix.SockaddrInet4{Port: Port, Addr: firstFour(to)}
	if s.family == opt.V6 {
		address = &unix.SockaddrInet6{Port: Port, Addr: to.As16()}
	}
	var failed error
	err := s.raw.Write(func(fd uintptr) bool {
		for range 3 { // an ICMP error that waits makes the next system call fail, whatever its receiver is
			failed = unix.Sendto(int(fd), datagram, unix.MSG_DONTWAIT, address)
			if !errors.Is(failed, unix.ECONNREFUSED) && !errors.Is(failed, unix.EHOSTUNREACH) {
				break
			}
		}
		return true
	})
	return errors.Join(err, failed)
}

// firstFour returns an IPv4 address, and zeros for an IPv6 address.
func firstFour(a netip.Addr) [4]byte {
	if a.Is4() {
		return a.As4()
	}
	return [4]byte{}
}

// Receive waits for a datagram or a refusal. Its data is valid until the next call.
func (s *socket) Receive() (arrival, error) {
	for {
		if len(s.refusals) > 0 {
			first := s.refusals[0]
			s.refusals = s.refusals[1:]
			return first, nil
		}
		n, from, err := s.udp.ReadFromUDPAddrPort(s.buffer)
		switch {
		case errors.Is(err, net.ErrClosed):
			return arrival{}, err
		case err != nil: // an ICMP error waits
			s.takeRefusals()
		case from.Port() == Port:
			return arrival{from: from.Addr().Unmap(), data: s.buffer[:n]}, nil
		}
	}
}

// quoted is the most of a refused datagram that is kept: its beginning names it.
const quoted = len(magic) + nonceSize

// takeRefusals empties the queue of ICMP errors.
func (s *socket) takeRefusals() {
	oob := make([]byte, 512)
	_ = s.raw.Control(func(fd uintptr) { // fails when the socket is closed, which Receive finds
		for {
			n, oobn, _, to, err := unix.Recvmsg(int(fd), s.buffer, oob, unix.MSG_ERRQUEUE|unix.MSG_DONTWAIT)
			if err != nil {
				return
			}
			if closedPort(oob[:oobn]) {
				s.refusals = append(s.refusals, arrival{from: addressOf(to), data: bytes.Clone(s.buffer[:min(n, quoted)]), refused: true})
			}
		}
	})
}

// closedPort reports whether the control message of an ICMP error says that a host answered
// "port unreachable": type 3 code 3 (RFC 792), type 1 code 4 (RFC 4443).
func closedPort(oob []byte) bool {
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return false
	}
	for _, m := range messages {
		if len(m.Data) < 8 { // struct sock_extended_err: errno u32, origin, type, code, pad
			continue
		}
		origin, kind, code := m.Data[4], m.Data[5], m.Data[6]
		switch {
		case m.Header.Level == unix.IPPROTO_IP && m.Header.Type == unix.IP_RECVERR && origin == unix.SO_EE_ORIGIN_ICMP && kind == 3 && code == 3,
			m.Header.Level == unix.IPPROTO_IPV6 && m.Header.Type == unix.IPV6_RECVERR && origin == unix.SO_EE_ORIGIN_ICMP6 && kind == 1 && code == 4:
			return true
		}
	}
	return false
}

func addressOf(a unix.Sockaddr) netip.Addr {
	switch a := a.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrFrom4(a.Addr)
	case *unix.SockaddrInet6:
		return netip.AddrFrom16(a.Addr).Unmap()
	}
	return netip.Addr{}
}

// Close ends Receive.
func (s *socket) Close() error { return s.udp.Close() }

// Stale reports whether the interface with the name of the tunnel is another than at Open.
func (s *socket) Stale() bool {
	index := 0
	err := s.raw.Control(func(fd uintptr) { index, _ = indexOf(int(fd), s.iface) })
	return err != nil || index != s.index
}
