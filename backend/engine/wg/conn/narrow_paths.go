package conn

import (
	"net/netip"
	"sync"
	"sync/atomic"
	"time"
)

// A train whose datagrams are larger than the path's MTU is refused by the kernel (udp_send_skb:
// EMSGSIZE, EINVAL before Linux 6.11), although it would fragment the same datagrams one by one. To try a
// train first, every time, would double the system calls to that peer. narrowPaths remembers such
// paths, until the device tells of a change of routes, and for narrowFor at most: the kernel does not
// announce that it has forgotten an MTU that a router told it.
type narrowPaths struct {
	some     atomic.Bool // paths is not empty: the sender of a train looks only then
	refusals atomic.Uint64

	mu    sync.Mutex // guards paths
	paths map[netip.Addr]narrowPath
}

// narrowPath is what a path has refused.
type narrowPath struct {
	segment int // bytes of the smallest datagram that was refused in a train
	until   time.Time
}

const (
	narrowFor   = 10 * time.Second
	narrowLimit = 1024 // paths; beyond that, trains to further paths are tried every time
)

// refuses reports whether trains of datagrams of that size to an address are known to be refused.
func (n *narrowPaths) refuses(to netip.Addr, segment int, now time.Time) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	p, ok := n.paths[to]
	if ok && !now.Before(p.until) {
		delete(n.paths, to)
		n.some.Store(len(n.paths) > 0)
		return false
	}
	return ok && segment >= p.segment
}

// note remembers a refusal.
func (n *narrowPaths) note(to netip.Addr, segment int, now time.Time) {
	n.refusals.Add(1)
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.paths == nil {
		n.paths = map[netip.Addr]narrowPath{}
	}
	p, known := n.paths[to]
	if !known && len(n.paths) >= narrowLimit {
		return
	}
	if !known || segment < p.segment {
		p.segment = segment
	}
	p.until = now.Add(narrowFor)
	n.paths[to] = p
	n.some.Store(true)
}

// forget makes the next train to every path be tried again.
func (n *narrowPaths) forget() {
	n.mu.Lock()
	defer n.mu.Unlock()
	clear(n.paths)
	n.some.Store(false)
}
