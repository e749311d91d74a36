package network

import (
	"context"
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/loden-net/loden/config/diff"
)

// Route is a route of ours. It is comparable with ==.
type Route struct {
	Dst    netip.Prefix
	Tunnel bool // through the tunnel; otherwise unreachable, the net below it
}

func (r Route) String() string {
	if r.Tunnel {
		return r.Dst.String() + " through the tunnel"
	}
	return r.Dst.String() + " unreachable"
}

const (
	// protocol marks our routes among all routes of the host (rtnetlink's rtm_protocol;
	// numbers above RTPROT_STATIC belong to user space, and /etc/iproute2/rt_protos of
	// Debian 12 has no 76).
	protocol = 76

	// netMetric puts the unreachable route below every other route of the same prefix, so it
	// answers only while the tunnel's route is gone: a packet for the overlay then dies here
	// instead of following the default route into the underlay.
	netMetric = 1<<32 - 2

	// tunnelMetric is the kernel's default for an IPv6 route without a metric; IPv4 takes
	// the same, so that both families have the same comparison.
	tunnelMetric = 1024
)

// routes is the part of the reconciler that owns our routes.
type routes struct {
	tunnel  string
	observe func() (Inventory, error)
}

// changes compares the routes with our mark with want and returns the changes that make
// them equal. A route of ours in another shape (metric, device gone) counts as absent.
func (r routes) changes(_ context.Context, want []Route) ([]diff.Change, error) {
	v, err := r.observe()
	if err != nil {
		return nil, err
	}
	var good []Route
	var bad []kernelRoute
	byRoute := map[Route]kernelRoute{}
	for _, k := range v.own {
		route, ok := k.ours(v.tunnel)
		if _, twice := byRoute[route]; !ok || twice {
			bad = append(bad, k)
			continue
		}
		good, byRoute[route] = append(good, route), k
	}
	add, del := diff.Sets(good, want)
	var out []diff.Change
	for _, route := range add {
		out = append(out, diff.Change{Part: routesPart, Verb: "add", Object: route.String(),
			Run: func(context.Context) error { return r.replace(route) }})
	}
	for _, route := range del {
		bad = append(bad, byRoute[route])
	}
	for _, k := range bad {
		out = append(out, diff.Change{Part: routesPart, Verb: "delete", Object: k.String(),
			Run: func(context.Context) error { return k.remove() }})
	}
	return out, nil
}

// index returns the tunnel's interface index; 0, which no interface has, while there is no
// tunnel.
func (r routes) index() int {
	link, err := netlink.LinkByName(r.tunnel)
	if err != nil {
		return 0
	}
	return link.Attrs().Index
}

// replace makes a route, or takes over the route that stands in its place.
func (r routes) replace(route Route) error {
	n := netlink.Route{
		Dst:      ipNet(route.Dst),
		Protocol: protocol,
		Type:     unix.RTN_UNREACHABLE,
		Priority: netMetric,
		Table:    unix.RT_TABLE_MAIN,
	}
	if route.Tunnel {
		n.Type, n.Priority, n.LinkIndex = unix.RTN_UNICAST, tunnelMetric, r.index()
		if route.Dst.Addr().Is4() {
			n.Scope = netlink.SCOPE_LINK
		}
		if n.LinkIndex == 0 {
			return fmt.Errorf("add route %s: there is no interface %s", route, r.tunnel)
		}
	} else if route.Dst.Addr().Is6() {
		n.LinkIndex = loopbackIndex // the kernel lists an IPv6 unreachable route on lo
	}
	if err := netlink.RouteReplace(&n); err != nil {
		return fmt.Errorf("add route %s: %w", route, err)
	}
	return nil
}

// loopbackIndex is lo's interface index in every network namespace.
const loopbackIndex = 1

// ipNet is the edge to netlink's form of a prefix.
func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}
