package probe

import (
	"context"
	"net"
	"net/netip"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/crypto/curve25519"
	"golang.org/x/sync/errgroup"
	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"github.com/loden-net/loden/config/opt"
)

// mesh is a network of services in memory, on the time of synctest.
type mesh struct {
	t testing.TB

	mu    sync.Mutex // guards the fields below
	ends  map[netip.Addr]*end
	drop  func(from, to netip.Addr, size int) bool // size of the IP packet; nil drops no packet
	delay time.Duration
	sent  map[netip.Addr]int // packets by sender
	nodes []*meshNode

	byAddr map[netip.Addr]*meshNode
}

// meshNode is a node of the mesh.
type meshNode struct {
	name    string
	key     wgtypes.Key
	addrs   opt.Dual[netip.Addr]
	service *Service
	stop    func()
	changes []Change
	answer  func(question string) ([]byte, error)

	keys *seals // of a node without a service that echoes; nil: its port is closed

	traffic map[wgtypes.Key]Traffic // guarded by the lock of the mesh
}

// end is a socket in memory.
type end struct {
	m        *mesh
	addr     netip.Addr
	arrivals chan arrival
	closed   chan struct{}
}

func newMesh(t testing.TB) *mesh {
	return &mesh{t: t, ends: map[netip.Addr]*end{}, delay: time.Millisecond, sent: map[netip.Addr]int{}, byAddr: map[netip.Addr]*meshNode{}}
}

func (m *mesh) with(change func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	change()
}

func (m *mesh) open(_ string, addr netip.Addr) (conn, error) {
	e := &end{m: m, addr: addr, arrivals: make(chan arrival, 4096), closed: make(chan struct{})}
	m.with(func() { m.ends[addr] = e })
	return e, nil
}

func (e *end) Send(to netip.Addr, datagram []byte) error {
	size := len(datagram) + headers(opt.FamilyOf(to))
	e.m.mu.Lock()
	defer e.m.mu.Unlock()
	e.m.sent[e.addr]++
	if e.m.drop != nil && e.m.drop(e.addr, to, size) {
		return nil
	}
	e.m.count(e.addr, to, int64(size))
	time.AfterFunc(e.m.delay, func() { e.m.arrive(e.addr, to, datagram) })
	return nil
}

// count counts a packet as the WireGuard of both nodes does. The caller holds the lock.
func (m *mesh) count(from, to netip.Addr, size int64) {
	a, b := m.at(from), m.at(to)
	if a == nil || b == nil {
		return
	}
	sent, received := a.traffic[b.key], b.traffic[a.key]
	sent.Sent, sent.Handshake = sent.Sent+size, time.Now()
	received.Received, received.Handshake = received.Received+size, time.Now()
	a.traffic[b.key], b.traffic[a.key] = sent, received
}

func (m *mesh) at(a netip.Addr) *meshNode { return m.byAddr[a] }

// arrive delivers a datagram, or refuses it when the port is closed.
func (m *mesh) arrive(from, to netip.Addr, datagram []byte) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if e, ok := m.ends[to]; ok {
		e.arrivals <- arrival{from: from, data: datagram}
		return
	}
	if n := m.at(to); n != nil && n.keys != nil {
		m.echo(n, from, datagram)
		return
	}
	if back, ok := m.ends[from]; ok && m.at(to) != nil && (m.drop == nil || !m.drop(to, from, 100)) {
		m.count(to, from, 100)
		back.arrivals <- arrival{from: to, data: datagram[:quoted], refused: true}
	}
}

func (e *end) Receive() (arrival, error) {
	select {
	case a := <-e.arrivals:
		return a, nil
	case <-e.closed:
		return arrival{}, net.ErrClosed
	}
}

func (e *end) Close() error {
	e.m.mu.Lock()
	defer e.m.mu.Unlock()
	if e.m.ends[e.addr] == e {
		delete(e.m.ends, e.addr)
	}
	close(e.closed)
	return nil
}

func (e *end) Stale() bool { return false }

const meshMTU = 1420

// add adds nodes that know each other.
func (m *mesh) add(names ...string) {
	for _, name := range names {
		n := m.newNode(name, len(m.nodes)+1)
		m.with(func() { m.nodes = append(m.nodes, n) })
	}
}

func (m *mesh) newNode(name string, i int) *meshNode {
	hi, lo := byte(i>>8), byte(i)
	n := &meshNode{name: name, key: publicOf(i), traffic: map[wgtypes.Key]Traffic{}, addrs: opt.Dual[netip.Addr]{
		V4: opt.Some(netip.AddrFrom4([4]byte{10, 244 + hi, lo, 0})),
		V6: opt.Some(netip.AddrFrom16([16]byte{0: 0xfd, 6: hi, 7: lo})),
	}}
	m.with(func() {
		for _, a := range n.addrs.All() {
			m.byAddr[a] = n
		}
	})
	return n
}

func secretOf(i int) [32]byte { return [32]byte{0: 8, 1: byte(i), 2: byte(i >> 8), 31: 64} }

func publicOf(i int) wgtypes.Key {
	secret := secretOf(i)
	public, _ := curve25519.X25519(secret[:], curve25519.Basepoint) // the base point is of full order
	return wgtypes.Key(public)
}

// options returns the options of a node's service.
func (m *mesh) options(i int) Options {
	n := m.nodes[i]
	return Options{
		Name: n.name, Public: n.key, Interval: 10 * time.Second, Log: zerolog.New(zerolog.NewTestWriter(m.t)), open: m.open,
		Shared: func(peer wgtypes.Key) ([32]byte, error) {
			secret := secretOf(i + 1)
			shared, err := curve25519.X25519(secret[:], peer[:])
			return [32]byte(shared), err
		},
		Traffic: func(context.Context) (map[wgtypes.Key]Traffic, error) {
			m.mu.Lock()
			defer m.mu.Unlock()
			out := map[wgtypes.Key]Traffic{}
			for _, peer := range m.nodes {
				if peer != n {
					out[peer.key] = n.traffic[peer.key]
				}
			}
			return out, nil
		},
		Answer:  func(_ context.Context, _ wgtypes.Key, question string) ([]byte, error) { return n.answer(question) },
		Changed: func(c Change) { m.with(func() { n.changes = append(n.changes, c) }) },
	}
}

// run runs the service of a node.
func (m *mesh) run(i int) *meshNode {
	n := m.nodes[i]
	n.service = New(m.options(i))
	n.service.Update(m.plan(i))
	ctx, cancel := context.WithCancel(m.t.Context())
	g := errgroup.Group{}
	g.Go(func() error { return n.service.Run(ctx) })
	n.stop = sync.OnceFunc(func() {
		cancel()
		_ = g.Wait() // Run returns nil
	})
	return n
}

// plan returns the plan of a node: all other nodes are its peers.
func (m *mesh) plan(i int) Plan {
	p := Plan{Interface: "loden0", MTU: meshMTU, Addresses: m.nodes[i].addrs}
	for j, n := range m.nodes {
		if j != i {
			p.Peers = append(p.Peers, Peer{Key: n.key, Node: n.name, Addresses: n.addrs})
		}
	}
	return p
}

// inBubble runs a test with a mesh of running nodes on virtual time.
func inBubble(t *testing.T, names []string, test func(t *testing.T, m *mesh)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		m := newMesh(t)
		m.add(names...)
		for i := range m.nodes {
			m.run(i)
		}
		test(t, m)
		for _, n := range m.nodes {
			if n.stop != nil { // nil: the node has no service
				n.stop()
			}
		}
	})
}

// later lets the fake time pass.
func later(d time.Duration) {
	time.Sleep(d) // fake time of synctest
	synctest.Wait()
}

// state returns the judgement of a path.
func (m *mesh) state(from, to int, f opt.Family) Path {
	p, _ := m.nodes[from].service.Path(m.nodes[to].key, f)
	return p
}

// until waits until a path has a state, and returns the time that it took.
func (m *mesh) until(from, to int, f opt.Family, state string, limit time.Duration) time.Duration {
	m.t.Helper()
	started := time.Now()
	for time.Since(started) < limit {
		if m.state(from, to, f).State == state {
			return time.Since(started)
		}
		later(250 * time.Millisecond)
	}
	m.t.Errorf("%s -> %s over %v after %v: %+v, want %s", m.nodes[from].name, m.nodes[to].name, f, limit, m.state(from, to, f), state)
	return limit
}
