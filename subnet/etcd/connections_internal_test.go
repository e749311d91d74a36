package etcd

import (
	"io"
	"maps"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rs/zerolog"
)

// silentProxy stands before etcd. After freeze its connections stay open and carry no byte,
// as connections do whose address has left the host; later connections work.
type silentProxy struct {
	target string
	wg     sync.WaitGroup

	mu     sync.Mutex // guards the fields below
	frozen chan struct{}
	conns  []net.Conn
}

func newSilentProxy(t *testing.T, target string) (p *silentProxy, url string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p = &silentProxy{target: strings.TrimPrefix(target, "http://"), frozen: make(chan struct{})}
	p.wg.Go(func() { p.serve(l) })
	t.Cleanup(func() {
		_ = l.Close()
		p.freeze()
		p.mu.Lock()
		for _, c := range p.conns {
			_ = c.Close()
		}
		p.mu.Unlock()
		p.wg.Wait()
	})
	return p, "http://" + l.Addr().String()
}

func (p *silentProxy) serve(l net.Listener) {
	for {
		near, err := l.Accept()
		if err != nil {
			return
		}
		far, err := net.Dial("tcp", p.target)
		if err != nil {
			_ = near.Close()
			continue
		}
		p.mu.Lock()
		p.conns = append(p.conns, near, far)
		frozen := p.frozen
		p.mu.Unlock()
		for _, pair := range [][2]net.Conn{{near, far}, {far, near}} {
			p.wg.Go(func() { forward(pair[0], pair[1], frozen) })
		}
	}
}

// forward copies bytes until the end of a connection; after frozen it drops them.
func forward(to, from net.Conn, frozen chan struct{}) {
	buf := make([]byte, 64<<10)
	for {
		n, err := from.Read(buf)
		if err != nil {
			return
		}
		select {
		case <-frozen:
			_, _ = io.Discard.Write(buf[:n])
		default:
			_, _ = to.Write(buf[:n])
		}
	}
}

// freeze silences the connections of this moment.
func (p *silentProxy) freeze() {
	p.mu.Lock()
	defer p.mu.Unlock()
	close(p.frozen)
	p.frozen = make(chan struct{})
}

// movingHost is a host whose addresses a test takes away.
type movingHost struct {
	mu        sync.Mutex // guards addresses
	addresses map[netip.Addr]bool
}

func (h *movingHost) get() (map[netip.Addr]bool, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return maps.Clone(h.addresses), nil
}

func (h *movingHost) set(addresses ...string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.addresses = map[netip.Addr]bool{}
	for _, a := range addresses {
		h.addresses[netip.MustParseAddr(a)] = true
	}
}

// movingRegistry returns a registry behind a silent proxy, with a connection from 127.0.0.1.
func movingRegistry(t *testing.T) (*Registry, *silentProxy, *movingHost) {
	t.Helper()
	p, url := newSilentProxy(t, os.Getenv("LODEN_TEST_SHARED"))
	r, err := Open(t.Context(), Options{Endpoints: []string{url}, Prefix: "/" + t.Name()}, zerolog.Nop())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.Close() })
	host := &movingHost{}
	host.set("127.0.0.1", "192.0.2.1")
	r.connections.hostAddresses = host.get
	if _, err := r.Snapshot(t.Context()); err != nil {
		t.Fatal(err)
	}
	return r, p, host
}

// C2 of issue 12: a node whose address went away published its new address after six seconds,
// when TCP had given the old connection up.
func TestRequestAfterTheLocalAddressLeftTheHostUsesANewConnection(t *testing.T) {
	r, p, host := movingRegistry(t)
	p.freeze()
	host.set("192.0.2.1")
	begun := time.Now()
	if _, err := r.grant(t.Context()); err != nil { // a write, which etcd's client does not repeat
		t.Fatalf("after %v: %v", time.Since(begun), err)
	}
	if took := time.Since(begun); took > time.Second {
		t.Errorf("the request took %v, want less than a second", took)
	}
}

func TestRequestUnderWayEndsWhenTheLocalAddressLeavesTheHost(t *testing.T) {
	r, p, host := movingRegistry(t)
	p.freeze()
	leave := time.AfterFunc(lookEvery/2, func() { host.set("192.0.2.1") })
	defer leave.Stop()
	begun := time.Now()
	if _, err := r.Snapshot(t.Context()); err != nil { // a read, which etcd's client repeats
		t.Fatalf("after %v: %v", time.Since(begun), err)
	}
	if took := time.Since(begun); took > 2*time.Second {
		t.Errorf("the request took %v, want less than two seconds", took)
	}
}

func TestConnectionStaysWhileItsAddressIsOnTheHost(t *testing.T) {
	r, _, host := movingRegistry(t)
	before := r.connections.locals()
	host.set("127.0.0.1", "198.51.100.7")
	if _, err := r.Snapshot(t.Context()); err != nil {
		t.Fatal(err)
	}
	if after := r.connections.locals(); len(before) != 1 || !maps.Equal(before, after) {
		t.Errorf("connections %v, then %v", before, after)
	}
}

// locals returns the open connections with their own addresses.
func (c *connections) locals() map[string]bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	out := map[string]bool{}
	for open := range c.open {
		out[open.LocalAddr().String()] = true
	}
	return out
}
