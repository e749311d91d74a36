package etcd_test

import (
	"context"
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/loden-net/loden/config"
	"github.com/loden-net/loden/config/opt"
	"github.com/loden-net/loden/subnet"
	"github.com/loden-net/loden/subnet/etcd"
)

// node uses the registry as `loden run` does: it keeps a lease, acquires it again
// when it is lost, and follows the other nodes through the removal hold.
type node struct {
	r    *etcd.Registry
	n    config.Network
	want subnet.Lease

	mu       sync.Mutex
	lease    subnet.Lease
	lost     int
	removals subnet.RemovalHold
	shown    subnet.Snapshot
	emitted  int
}

// runNode starts a node that ends with the test.
func runNode(t *testing.T, r *etcd.Registry, n config.Network, want subnet.Lease) *node {
	t.Helper()
	x := &node{r: r, n: n, want: want, removals: subnet.NewRemovalHold(time.Hour, subnet.Leases{})}
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() { x.hold(ctx) })
	wg.Go(func() { _ = r.Watch(ctx, x.take) })
	t.Cleanup(func() { cancel(); wg.Wait() })
	return x
}

func (x *node) hold(ctx context.Context) {
	var prefer opt.Dual[netip.Prefix]
	for ctx.Err() == nil {
		c, err := x.r.Acquire(ctx, etcd.Want{Network: x.n, Lease: x.want, Prefer: prefer})
		if err != nil {
			select {
			case <-ctx.Done():
			case <-time.After(50 * time.Millisecond):
			}
			continue
		}
		prefer = c.Lease().Subnets
		x.mu.Lock()
		x.lease = c.Lease()
		x.mu.Unlock()
		_ = c.Keep(ctx)
		x.mu.Lock()
		x.lost++
		x.mu.Unlock()
	}
}

func (x *node) take(s subnet.Snapshot) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.removals, x.shown = x.removals.Next(time.Now(), s)
	x.emitted++
}

// held returns the node's subnets, "" before it has any.
func (x *node) held() string {
	x.mu.Lock()
	defer x.mu.Unlock()
	return subnet.FormatKey(x.lease.Subnets)
}

// sees returns the names of the nodes that x would have tunnels with, itself included.
func (x *node) sees() string {
	x.mu.Lock()
	defer x.mu.Unlock()
	var names []string
	for l := range x.shown.Leases.All() {
		names = append(names, l.Node)
	}
	slices.Sort(names)
	return strings.Join(names, " ")
}

func (x *node) losses() int {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.lost
}

// proxy is a way to an etcd that can be cut.
type proxy struct {
	listener net.Listener
	target   string
	wg       sync.WaitGroup

	mu    sync.Mutex
	cut   bool
	conns map[net.Conn]bool
}

func newProxy(t *testing.T, target string) *proxy {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{listener: l, target: strings.TrimPrefix(target, "http://"), conns: map[net.Conn]bool{}}
	p.wg.Go(p.serve)
	t.Cleanup(func() {
		_ = l.Close()
		p.setCut(true)
		p.wg.Wait()
	})
	return p
}

func (p *proxy) url() string { return "http://" + p.listener.Addr().String() }

func (p *proxy) serve() {
	for {
		c, err := p.listener.Accept()
		if err != nil {
			return
		}
		s, err := net.Dial("tcp", p.target)
		p.mu.Lock()
		if err != nil || p.cut {
			_ = c.Close()
			if err == nil {
				_ = s.Close()
			}
			p.mu.Unlock()
			continue
		}
		p.conns[c], p.conns[s] = true, true
		p.mu.Unlock()
		for _, pair := range [][2]net.Conn{{c, s}, {s, c}} {
			p.wg.Go(func() {
				_, _ = io.Copy(pair[0], pair[1])
				_, _ = pair[0].Close(), pair[1].Close()
			})
		}
	}
}

// setCut cuts every connection and refuses new connections, or lets them through again.
func (p *proxy) setCut(cut bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cut = cut
	if !cut {
		return
	}
	for c := range p.conns {
		_ = c.Close()
	}
	p.conns = map[net.Conn]bool{}
}
