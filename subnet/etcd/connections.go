package etcd

import (
	"context"
	"maps"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/loden-net/loden/config/wait"
)

// lookEvery is the time between two looks at the host's addresses while a request is under way.
const lookEvery = 200 * time.Millisecond

// connections are the TCP connections of etcd's client. When a node gets another address
// (DHCP, a moved virtual address), etcd's answers to the old address never arrive, and TCP
// would find that out after its user timeout of five seconds, in which the node cannot
// publish its new address. So a connection is closed when its local address has left the host.
type connections struct {
	hostAddresses func() (map[netip.Addr]bool, error)
	userTimeout   time.Duration // TCP_USER_TIMEOUT, which gRPC sets on plain TCP connections alone

	mu      sync.Mutex // guards the fields below
	known   map[netip.Addr]bool
	open    map[*connection]struct{}
	dialing map[*context.CancelFunc]struct{}
}

// connection is a TCP connection with the address that it cannot do without.
type connection struct {
	*net.TCPConn
	owner *connections
	local netip.Addr    // the zero value when no interface had the address: 127.0.0.2, a route of type local
	ended chan struct{} // closed when gRPC has closed its side, and sends no more requests here
	once  sync.Once
}

func newConnections(userTimeout time.Duration) *connections {
	return &connections{
		hostAddresses: interfaceAddresses, userTimeout: userTimeout,
		open: map[*connection]struct{}{}, dialing: map[*context.CancelFunc]struct{}{},
	}
}

// interfaceAddresses returns the addresses of the host's interfaces, without zones.
func interfaceAddresses() (map[netip.Addr]bool, error) {
	all, err := net.InterfaceAddrs()
	if err != nil {
		return nil, err
	}
	out := map[netip.Addr]bool{}
	for _, a := range all {
		if p, err := netip.ParsePrefix(a.String()); err == nil {
			out[p.Addr().Unmap().WithZone("")] = true
		}
	}
	return out, nil
}

// dial connects to an address of etcd. It fails when the host's addresses change meanwhile.
func (c *connections) dial(ctx context.Context, address string) (net.Conn, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	c.mu.Lock()
	c.dialing[&cancel] = struct{}{}
	c.mu.Unlock()
	d := net.Dialer{Control: func(_, _ string, raw syscall.RawConn) error {
		var err error
		control := raw.Control(func(fd uintptr) {
			err = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(c.userTimeout.Milliseconds()))
		})
		if control != nil {
			return control
		}
		return err
	}}
	conn, err := d.DialContext(ctx, "tcp", address)
	present, _ := c.hostAddresses() // without an answer the connection is left to TCP's own timeout
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.dialing, &cancel)
	if err != nil {
		return nil, err
	}
	tcp := conn.(*net.TCPConn) // the network is "tcp"
	made := &connection{TCPConn: tcp, owner: c, ended: make(chan struct{})}
	if local := tcp.LocalAddr().(*net.TCPAddr).AddrPort().Addr().Unmap().WithZone(""); present[local] {
		made.local = local
	}
	c.open[made] = struct{}{}
	return made, nil
}

// Close closes the connection. It may be called again.
func (c *connection) Close() error {
	err := c.TCPConn.Close()
	c.once.Do(func() {
		c.owner.mu.Lock()
		delete(c.owner.open, c)
		c.owner.mu.Unlock()
		close(c.ended)
	})
	return err
}

// look reports whether the host's addresses changed since the last look. It closes the
// connections whose local address has left the host, waits until gRPC knows it, and ends the
// attempts to connect that a change may have stranded.
func (c *connections) look(ctx context.Context) (changed bool) {
	now, err := c.hostAddresses()
	if err != nil {
		return false // TCP's own timeout is left
	}
	stranded, changed := c.compare(now)
	for _, s := range stranded {
		_ = s.TCPConn.Close() // gRPC reads the error and calls connection.Close
		select {
		case <-s.ended:
		case <-ctx.Done():
		}
	}
	return changed
}

// compare notes the host's addresses, and returns the connections whose address is gone.
func (c *connections) compare(now map[netip.Addr]bool) (stranded []*connection, changed bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	changed = c.known != nil && !maps.Equal(c.known, now)
	c.known = now
	if changed {
		for cancel := range c.dialing {
			(*cancel)()
		}
	}
	for open := range c.open {
		if open.local.IsValid() && !now[open.local] {
			stranded = append(stranded, open)
		}
	}
	return stranded, changed || len(stranded) > 0
}

// attend looks at the host's addresses now and again and again until stop is called, and
// calls changed after each look that finds other addresses.
func (c *connections) attend(ctx context.Context, changed func()) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	if c.look(ctx) {
		changed()
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for wait.For(ctx, lookEvery) {
			if c.look(ctx) {
				changed()
			}
		}
	}()
	return func() {
		cancel()
		<-ended
	}
}
