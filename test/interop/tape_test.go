package interop_test

import (
	"context"
	"encoding/binary"
	"net"
	"net/netip"
	"slices"
	"sync"
	"testing"

	"github.com/mdlayher/socket"
	"golang.org/x/sys/unix"

	"github.com/loden-net/loden/test/sandbox"
)

// The types of messages: the paper, section 5.4.
const (
	initiation = 1
	response   = 2
	cookie     = 3
	transport  = 4
)

// message is a WireGuard message as it was on the wire.
type message struct {
	from, to netip.AddrPort
	data     []byte
}

// sender and receiver are the indices in a handshake message; a response has both.
func (m message) sender() uint32   { return binary.LittleEndian.Uint32(m.data[4:]) }
func (m message) receiver() uint32 { return binary.LittleEndian.Uint32(m.data[8:]) }

// shape is the part of a transport message that an outsider can tell apart.
type shape struct {
	from netip.Addr
	size int
}

// tape records the WireGuard messages on a wire: all handshakes but a stranger's initiations, and
// of transport messages the last of every size.
type tape struct {
	mu         sync.Mutex // guards the fields below
	handshakes []message
	transports map[shape]message
}

// newTape listens on a host's eth0 until the test ends.
func newTape(t *testing.T, h *sandbox.Host) *tape {
	t.Helper()
	var conn *socket.Conn
	err := h.Do(func() (err error) {
		const protocol = unix.ETH_P_ALL>>8 | unix.ETH_P_ALL&0xff<<8 // in network order
		if conn, err = socket.Socket(unix.AF_PACKET, unix.SOCK_RAW, 0, "packet", nil); err != nil {
			return err
		}
		link, err := net.InterfaceByName("eth0")
		if err != nil {
			return err
		}
		_ = conn.SetsockoptInt(unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 8<<20) // a missed packet makes a test fail, not pass
		return conn.Bind(&unix.SockaddrLinklayer{Protocol: protocol, Ifindex: link.Index})
	})
	if err != nil {
		t.Fatal(err)
	}
	x := &tape{transports: map[shape]message{}}
	var run sync.WaitGroup
	ctx, stop := context.WithCancel(context.Background())
	run.Go(func() {
		b := make([]byte, 128<<10)
		for {
			n, _, err := conn.Recvfrom(ctx, b, 0)
			if err != nil {
				return
			}
			x.see(b[:n])
		}
	})
	t.Cleanup(func() {
		stop()
		run.Wait()
		_ = conn.Close()
	})
	return x
}

// see keeps a frame if it is a message of WireGuard.
func (x *tape) see(frame []byte) {
	p := sandbox.ParseFrame(frame)
	if p.Protocol != unix.IPPROTO_UDP || !p.Src.IsValid() || p.SrcPort == 0 {
		return
	}
	head := 14 + 40 + 8 // Ethernet, IPv6 or IPv4, UDP
	if p.Src.Is4() {
		head = 14 + 20 + 8
	}
	if len(frame) < head+32 || frame[head+1]|frame[head+2]|frame[head+3] != 0 {
		return
	}
	m := message{netip.AddrPortFrom(p.Src, p.SrcPort), netip.AddrPortFrom(p.Dst, p.DstPort), slices.Clone(frame[head:])}
	x.mu.Lock()
	defer x.mu.Unlock()
	switch kind := m.data[0]; {
	case kind == transport:
		x.transports[shape{p.Src, len(m.data)}] = m
	case kind == initiation && (p.Src == outside(stranger, true) || p.Src == outside(stranger, false)):
	case kind >= initiation && kind <= cookie:
		x.handshakes = append(x.handshakes, m)
	}
}

// all returns the handshake messages of a type that an address has sent.
func (x *tape) all(kind byte, from netip.Addr) []message {
	x.mu.Lock()
	defer x.mu.Unlock()
	var out []message
	for _, m := range x.handshakes {
		if m.data[0] == kind && m.from.Addr() == from {
			out = append(out, m)
		}
	}
	return out
}

// transport returns the last transport message of a size that an address has sent.
func (x *tape) transport(from netip.Addr, size int) (message, bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	m, ok := x.transports[shape{from, size}]
	return m, ok
}
