package node

import (
	"net"
	"net/netip"
	"sync"
)

// The bounds of a TCP listener. A monitor and a kubelet hold a handful of connections.
const (
	maxConnections = 64 // in total
	maxFromSource  = 16 // from the same IPv4 address, or from the same IPv6 network
	sourceLen4     = 32 // bits of an IPv4 source
	sourceLen6     = 64 // bits of an IPv6 source: a host chooses the other 64 by itself
)

// limitConnections returns l with bounds: it closes a connection beyond them at once, and
// goes on accepting, so that a client with many connections locks out itself alone.
func limitConnections(l net.Listener) net.Listener {
	return &limited{Listener: l, from: map[netip.Prefix]int{}}
}

// limited is a listener that counts its connections.
type limited struct {
	net.Listener

	mu    sync.Mutex // guards the fields below
	total int
	from  map[netip.Prefix]int // connections by source
}

// Accept returns the next connection within the bounds.
func (l *limited) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		source := sourceOf(c.RemoteAddr())
		if l.admit(source) {
			return &counted{Conn: c, release: sync.OnceFunc(func() { l.release(source) })}, nil
		}
		_ = c.Close() // the client is beyond the bounds; there is nobody to tell
	}
}

func (l *limited) admit(source netip.Prefix) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.total >= maxConnections || l.from[source] >= maxFromSource {
		return false
	}
	l.total++
	l.from[source]++
	return true
}

func (l *limited) release(source netip.Prefix) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.total--
	if l.from[source]--; l.from[source] == 0 {
		delete(l.from, source)
	}
}

// sourceOf returns the source that a connection is counted for. Addresses of an unknown
// form share the zero Prefix.
func sourceOf(a net.Addr) netip.Prefix {
	tcp, ok := a.(*net.TCPAddr)
	if !ok {
		return netip.Prefix{}
	}
	addr := tcp.AddrPort().Addr().Unmap()
	bits := sourceLen4
	if addr.Is6() {
		bits = sourceLen6
	}
	p, err := addr.WithZone("").Prefix(bits)
	if err != nil {
		return netip.Prefix{}
	}
	return p
}

// counted is a connection that gives its place back when it is closed.
type counted struct {
	net.Conn
	release func()
}

// Close closes the connection and gives its place back.
func (c *counted) Close() error {
	c.release()
	return c.Conn.Close()
}
