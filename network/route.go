package network

import (
	"context"
	"fmt"
	"hash/fnv"
	"net/netip"
	"slices"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/loden-net/loden/config/diff"
	"github.com/loden-net/loden/config/opt"
	"github.com/loden-net/loden/config/prefix"
	"github.com/loden-net/loden/network/firewall/rule"
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
	// protocol marks the routes of Loden among all routes of the host (rtnetlink's
	// rtm_protocol; numbers above RTPROT_STATIC belong to user space, and
	// /etc/iproute2/rt_protos of Debian 12 has no 76). A host may have several networks, each
	// with a daemon and a tunnel of its own: the device of a tunnel's route and the metric of
	// an unreachable route tell whose route it is.
	protocol = 76

	// netMetric puts the unreachable route below every other route of the same prefix, so it
	// answers only while the tunnel's route is gone: a packet for the overlay then dies here
	// instead of following the default route into the underlay. This metric belongs to the
	// daemon of rule.DefaultTunnel; see unreachableMetric.
	netMetric = 1<<32 - 2

	// tunnelMetric is the kernel's default for an IPv6 route without a metric; IPv4 takes
	// the same, so that both families have the same comparison.
	tunnelMetric = 1024
)

// unreachableMetric returns the metric of the unreachable routes of a tunnel's daemon, which
// is their mark: netMetric for the default tunnel, and a metric a little below it for each
// other name.
func unreachableMetric(tunnel string) uint32 {
	if tunnel == rule.DefaultTunnel {
		return netMetric
	}
	h := fnv.New32a()
	h.Write([]byte(tunnel)) // never fails
	return netMetric - 1 - h.Sum32()%(1<<24)
}

// routes is the part of the reconciler that owns our routes.
type routes struct {
	tunnel  string
	observe func() (Inventory, error)
	bridge  *gatewayWatch
}

// changes compares the routes of this daemon with want and returns the changes that make
// them equal. A route of ours in another shape (metric, gateway) counts as absent. Routes of
// another daemon on this host are left alone. The gateway addresses of the pods' bridge, and
// with them the route to the pods, belong to the part too.
func (r routes) changes(_ context.Context, want []Route, gateways opt.Dual[netip.Prefix]) ([]diff.Change, error) {
	v, err := r.observe()
	if err != nil {
		return nil, err
	}
	var good []Route
	var bad []kernelRoute
	byRoute := map[Route]kernelRoute{}
	for _, k := range v.own {
		if !r.owns(k, v.tunnel, want) {
			continue
		}
		route, ok := k.ours(v.tunnel, unreachableMetric(r.tunnel))
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
	return append(out, r.bridge.due(gatewayChanges(v, gateways), time.Now())...), nil
}

// owns reports whether a route with Loden's mark belongs to this daemon. An unreachable
// route with the metric of the default tunnel belongs to it as well where it has this
// daemon's network: an older version made it.
func (r routes) owns(k kernelRoute, tunnel int, want []Route) bool {
	if k.kind != unix.RTN_UNREACHABLE {
		return slices.Contains(k.links, tunnel)
	}
	return k.metric == unreachableMetric(r.tunnel) || k.metric == netMetric && slices.Contains(want, Route{Dst: k.dst})
}

// shared reports whether a daemon of another network has routes on this host.
func (r routes) shared() (bool, error) {
	v, err := r.observe()
	if err != nil {
		return false, err
	}
	return slices.ContainsFunc(v.own, func(k kernelRoute) bool { return !r.owns(k, v.tunnel, nil) }), nil
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
		Dst:      prefix.IPNet(route.Dst),
		Protocol: protocol,
		Type:     unix.RTN_UNREACHABLE,
		Priority: int(unreachableMetric(r.tunnel)),
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
