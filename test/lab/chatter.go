package lab

import (
	"context"
	"net"
	"net/netip"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/loden-net/loden/config/opt"
	"github.com/loden-net/loden/test/sandbox"
)

// discardPort is where nobody listens to chatter.
const discardPort = 9

// Chatter sends marked UDP packets from every pod, and from every node, to every pod of
// the other nodes until ctx is done, at rate packets a second on each path. It does not
// care whether they arrive, or whether the kernel takes them. It returns how many the
// kernel took, by address family.
func (l *Lab) Chatter(ctx context.Context, rate int) (opt.Dual[int64], error) {
	var sent [2]atomic.Int64
	group, ctx := errgroup.WithContext(ctx)
	for _, from := range l.Nodes {
		hosts := []*sandbox.Host{from.Host}
		for _, pod := range from.Pods {
			hosts = append(hosts, pod.Host)
		}
		for _, h := range hosts {
			for _, f := range l.Families.List() {
				conn, err := listenUDP(ctx, h, netip.AddrPortFrom(anyAddress(f), 0))
				if err != nil {
					return opt.Dual[int64]{}, err
				}
				to := l.podsBeyond(from, f)
				group.Go(func() error {
					chat(ctx, conn, to, rate, &sent[f])
					return conn.Close()
				})
			}
		}
	}
	err := group.Wait()
	var total opt.Dual[int64]
	for _, f := range l.Families.List() {
		total = total.With(f, sent[f].Load())
	}
	return total, err
}

// podsBeyond returns the addresses of all pods that are not on a node.
func (l *Lab) podsBeyond(node *Node, f opt.Family) []netip.AddrPort {
	var out []netip.AddrPort
	for _, n := range l.Nodes {
		for _, p := range n.Pods {
			if a, ok := p.Addrs.Of(f).Get(); ok && n != node {
				out = append(out, netip.AddrPortFrom(a, discardPort))
			}
		}
	}
	return out
}

// anyAddress is the unspecified address of a family.
func anyAddress(f opt.Family) netip.Addr {
	if f == opt.V6 {
		return netip.IPv6Unspecified()
	}
	return netip.IPv4Unspecified()
}

// chat sends to each address in turn until ctx is done.
func chat(ctx context.Context, conn *net.UDPConn, to []netip.AddrPort, rate int, sent *atomic.Int64) {
	tick := time.NewTicker(time.Second / time.Duration(rate))
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		for _, a := range to {
			if _, err := conn.WriteToUDPAddrPort([]byte(marker), a); err == nil {
				sent.Add(1)
			}
		}
	}
}

// Cut takes a node's cable out of the underlay switch; Heal puts it back.
func (l *Lab) Cut(n *Node) error { return l.underlay.Unplug(n.Host) }

// Heal undoes Cut.
func (l *Lab) Heal(n *Node) error { return l.underlay.Replug(n.Host) }
