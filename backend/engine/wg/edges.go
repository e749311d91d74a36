package wg

import (
	"github.com/loden-net/loden/backend/engine/wg/conn"
	"github.com/loden-net/loden/backend/engine/wg/tun"
)

// tunnel is the TUN device: *tun.Device, or memory in tests.
type tunnel interface {
	// queues returns what is read, each queue by a goroutine of its own.
	queues() []queue
	Write(pieces [][]byte) error
	Link() (tun.Link, error)
	StopReading()
	Close() error
}

// queue is a queue of the TUN device: *tun.Queue, or memory in tests.
type queue interface {
	Read(p []byte) (int, error)
	TryRead(p []byte) (int, error)
}

// kernelTUN is a TUN device of the kernel.
type kernelTUN struct{ *tun.Device }

func (t kernelTUN) queues() (out []queue) {
	for _, q := range t.Queues() {
		out = append(out, q)
	}
	return out
}

// binder opens the device's sockets, and knows the interfaces of their network namespace.
type binder interface {
	// open opens a socket for each address family of the host. With port 0 the system chooses the
	// port.
	open(port uint16, mark uint32) (bound, error)
	interfaceIndex(name string) (index uint32, known bool)
	interfaceName(index uint32) (name string, known bool)
	// routes opens the routing table; nil in tests without one.
	routes() (routeTable, error)
}

// kernelBinder opens UDP sockets of the kernel.
type kernelBinder struct{}

func (kernelBinder) open(port uint16, mark uint32) (bound, error) {
	p, err := conn.Open(port, mark)
	return boundPair(p), err
}

func (kernelBinder) interfaceIndex(name string) (uint32, bool) { return conn.InterfaceIndex(name) }
func (kernelBinder) interfaceName(index uint32) (string, bool) { return conn.InterfaceName(index) }

func (kernelBinder) routes() (routeTable, error) { return conn.OpenRoutes() }

// bound is an open pair of sockets; one of them may be missing.
type bound struct {
	v4, v6 socket // nil: the host lacks the address family
	port   uint16
}

// boundPair returns the sockets of a pair of the kernel.
func boundPair(p conn.Pair) bound {
	b := bound{port: p.Port}
	if p.V4 != nil {
		b.v4 = p.V4
	}
	if p.V6 != nil {
		b.v6 = p.V6
	}
	return b
}

// all returns the open sockets.
func (b bound) all() (out []socket) {
	for _, s := range []socket{b.v4, b.v6} {
		if s != nil {
			out = append(out, s)
		}
	}
	return out
}

// socket is a UDP socket: *conn.Socket, or memory in tests.
type socket interface {
	Receive(in []conn.Incoming) (int, error)
	Send(out []conn.Outgoing) error
	SetMark(mark uint32) error
	StopReceiving()
	Close() error
}
