package wg

import (
	"bytes"
	"errors"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"

	wgconn "golang.zx2c4.com/wireguard/conn"

	"github.com/loden-net/loden/backend/engine/wg/conn"
	"github.com/loden-net/loden/backend/engine/wg/offload"
	"github.com/loden-net/loden/backend/engine/wg/tun"
)

// wire is a network in memory: datagrams by destination. Everything on it works inside a
// synctest bubble.
type wire struct {
	mu    sync.Mutex
	ports map[netip.AddrPort]chan parcel
	// fate says what becomes of a datagram: how many copies arrive. nil: one.
	fate func(d parcel) int
	sent int
}

type parcel struct {
	from, to netip.AddrPort
	data     []byte
}

func newWire() *wire { return &wire{ports: map[netip.AddrPort]chan parcel{}} }

func (w *wire) listen(at netip.AddrPort) chan parcel {
	w.mu.Lock()
	defer w.mu.Unlock()
	c := make(chan parcel, 8192)
	w.ports[at] = c
	return c
}

func (w *wire) hangUp(at netip.AddrPort) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.ports, at)
}

func (w *wire) decide(fn func(parcel) int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.fate = fn
}

func (w *wire) carry(p parcel) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.sent++
	copies := 1
	if w.fate != nil {
		copies = w.fate(p)
	}
	for range copies {
		select {
		case w.ports[p.to] <- parcel{p.from, p.to, bytes.Clone(p.data)}:
		default: // nobody there, or too busy
		}
	}
}

// memoryBinder opens sockets of ours on a wire.
type memoryBinder struct {
	wire  *wire
	addrs []netip.Addr
}

func (b memoryBinder) open(port uint16, _ uint32) (bound, error) {
	if port == 0 {
		port = 40000
	}
	out := bound{port: port}
	for _, a := range b.addrs {
		at := netip.AddrPortFrom(a, port)
		s := &memorySocket{wire: b.wire, at: at, in: b.wire.listen(at), done: make(chan struct{})}
		if a.Is4() {
			out.v4 = s
		} else {
			out.v6 = s
		}
	}
	return out, nil
}

// interfaceIndex knows one interface: eth0 is number 3.
func (b memoryBinder) interfaceIndex(name string) (uint32, bool) { return 3, name == "eth0" }

func (b memoryBinder) interfaceName(index uint32) (string, bool) { return "eth0", index == 3 }

// routes returns no routing table: nothing moves on a wire.
func (b memoryBinder) routes() (routeTable, error) { return nil, nil }

type memorySocket struct {
	wire *wire
	at   netip.AddrPort
	in   chan parcel
	done chan struct{}
}

func (s *memorySocket) Receive(in []conn.Incoming) (int, error) {
	select {
	case <-s.done:
		return 0, net.ErrClosed
	case p := <-s.in:
		m := &in[0]
		m.Size = copy(m.Buf, p.data)
		m.Segment, m.From, m.Local, m.ECN = m.Size, p.from, p.to.Addr(), 0
		return 1, nil
	}
}

func (s *memorySocket) Send(out []conn.Outgoing) error {
	for i := range out {
		m := &out[i]
		m.Sent = m.Size
		all := bytes.Join(m.Pieces, nil)
		for at := 0; at < len(all); at += m.Segment {
			s.wire.carry(parcel{s.at, m.To, all[at:min(at+m.Segment, len(all))]})
		}
	}
	return nil
}

func (s *memorySocket) StopReceiving() {}

func (s *memorySocket) SetMark(uint32) error { return nil }

func (s *memorySocket) Close() error {
	s.wire.hangUp(s.at)
	close(s.done)
	return nil
}

// memoryTUN is a TUN device of ours in memory.
type memoryTUN struct {
	in, out chan []byte
	done    chan struct{}
	once    sync.Once
	down    atomic.Bool // tell the device by LinkChanged
}

func newMemoryTUN() *memoryTUN {
	return &memoryTUN{in: make(chan []byte, 8192), out: make(chan []byte, 8192), done: make(chan struct{})}
}

func (t *memoryTUN) queues() []queue { return []queue{t} }

func (t *memoryTUN) Read(p []byte) (int, error) {
	select {
	case <-t.done:
		return 0, os.ErrClosed
	case b := <-t.in:
		return copy(p, b), nil
	}
}

func (t *memoryTUN) TryRead(p []byte) (int, error) {
	select {
	case b := <-t.in:
		return copy(p, b), nil
	default:
		return 0, nil
	}
}

func (t *memoryTUN) StopReading() {}

func (t *memoryTUN) Write(pieces [][]byte) error {
	whole := bytes.Join(pieces, nil)
	var s offload.Split
	if err := s.Reset(offload.Decode(whole), whole[offload.HeaderSize:]); err != nil {
		return err
	}
	for seg, ok := s.Next(); ok; seg, ok = s.Next() {
		select {
		case t.out <- bytes.Clone(seg):
		default:
			return errors.New("full")
		}
	}
	return nil
}

func (t *memoryTUN) Link() (tun.Link, error) { return tun.Link{MTU: 1420, Up: !t.down.Load()}, nil }

func (t *memoryTUN) Close() error {
	t.once.Do(func() { close(t.done) })
	return nil
}

// theirBind is a socket of wireguard-go on a wire.
type theirBind struct {
	wire *wire
	addr netip.Addr

	mu   sync.Mutex
	at   netip.AddrPort
	done chan struct{}
}

type theirEndpoint struct{ netip.AddrPort }

func (e theirEndpoint) ClearSrc()           {}
func (e theirEndpoint) SrcToString() string { return "" }
func (e theirEndpoint) DstToString() string { return e.String() }
func (e theirEndpoint) DstToBytes() []byte  { b, _ := e.MarshalBinary(); return b }
func (e theirEndpoint) DstIP() netip.Addr   { return e.Addr() }
func (e theirEndpoint) SrcIP() netip.Addr   { return netip.Addr{} }

func (b *theirBind) Open(port uint16) ([]wgconn.ReceiveFunc, uint16, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if port == 0 {
		port = 40001
	}
	b.at, b.done = netip.AddrPortFrom(b.addr, port), make(chan struct{})
	in, done := b.wire.listen(b.at), b.done
	return []wgconn.ReceiveFunc{func(packets [][]byte, sizes []int, eps []wgconn.Endpoint) (int, error) {
		select {
		case <-done:
			return 0, net.ErrClosed
		case p := <-in:
			sizes[0], eps[0] = copy(packets[0], p.data), theirEndpoint{p.from}
			return 1, nil
		}
	}}, port, nil
}

func (b *theirBind) Close() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.done != nil {
		b.wire.hangUp(b.at)
		close(b.done)
		b.done = nil
	}
	return nil
}

func (b *theirBind) Send(bufs [][]byte, to wgconn.Endpoint) error {
	b.mu.Lock()
	from := b.at
	b.mu.Unlock()
	for _, data := range bufs {
		b.wire.carry(parcel{from, to.(theirEndpoint).AddrPort, data})
	}
	return nil
}

func (b *theirBind) SetMark(uint32) error { return nil }
func (b *theirBind) BatchSize() int       { return 1 }

func (b *theirBind) ParseEndpoint(s string) (wgconn.Endpoint, error) {
	a, err := netip.ParseAddrPort(s)
	return theirEndpoint{a}, err
}
