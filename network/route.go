package network

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/loden-net/loden/config/diff"
	"github.com/loden-net/loden/config/opt"
)

// Route is one of our routes. It is comparable with ==.
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
	// protocol marks our routes among all others of the machine (rtnetlink's rtm_protocol;
	// numbers above RTPROT_STATIC belong to user space, and /etc/iproute2/rt_protos of
	// Debian 12 has no 76).
	protocol = 76

	// netMetric puts the unreachable route below every other one of the same prefix, so it
	// answers only while the tunnel's route is gone: a packet for the overlay then dies here
	// instead of following the default route into the underlay.
	netMetric = 1<<32 - 2

	// tunnelMetric is what the kernel gives an IPv6 route without a metric; IPv4 takes the
	// same so that one comparison serves both.
	tunnelMetric = 1024
)

// routes is the part of the reconciler that owns our routes.
type routes struct{ tunnel string }

// changes lists the routes with our mark and returns what makes them want. A route of ours
// in another shape (metric, device gone) counts as not there.
func (r routes) changes(_ context.Context, want []Route) ([]diff.Change, error) {
	have, err := r.list()
	if err != nil {
		return nil, err
	}
	var good []Route
	var bad []netlink.Route
	index := r.index()
	byRoute := map[Route]netlink.Route{}
	for _, n := range have {
		route, ok := parseRoute(n, index)
		if _, twice := byRoute[route]; !ok || twice {
			bad = append(bad, n)
			continue
		}
		good, byRoute[route] = append(good, route), n
	}
	add, del := diff.Sets(good, want)
	var out []diff.Change
	for _, route := range add {
		out = append(out, diff.Change{Part: "routes", Verb: "add", Object: route.String(),
			Run: func(context.Context) error { return r.replace(route) }})
	}
	for _, route := range del {
		bad = append(bad, byRoute[route])
	}
	for _, n := range bad {
		out = append(out, diff.Change{Part: "routes", Verb: "delete", Object: describe(n),
			Run: func(context.Context) error { return remove(n) }})
	}
	return out, nil
}

// list returns every route with our mark, in the main table, of both families.
func (r routes) list() ([]netlink.Route, error) {
	var out []netlink.Route
	filter := &netlink.Route{Protocol: protocol, Table: unix.RT_TABLE_MAIN}
	for _, f := range opt.Families() {
		routes, err := dump(func() ([]netlink.Route, error) {
			return netlink.RouteListFiltered(netlinkFamily(f), filter, netlink.RT_FILTER_PROTOCOL|netlink.RT_FILTER_TABLE)
		})
		if err != nil {
			return nil, fmt.Errorf("list %s routes: %w", f, err)
		}
		out = append(out, routes...)
	}
	return out, nil
}

// index returns the tunnel's interface index; 0, which no interface has, when it is not there.
func (r routes) index() int {
	link, err := netlink.LinkByName(r.tunnel)
	if err != nil {
		return 0
	}
	return link.Attrs().Index
}

// parseRoute reads a kernel route back; false means that it is none of the shapes we make.
func parseRoute(n netlink.Route, tunnel int) (Route, bool) {
	if n.Dst == nil {
		return Route{}, false
	}
	addr, ok := netip.AddrFromSlice(n.Dst.IP)
	ones, _ := n.Dst.Mask.Size()
	dst := netip.PrefixFrom(addr.Unmap(), ones)
	switch {
	case !ok:
	case n.Type == unix.RTN_UNREACHABLE && n.Priority == netMetric:
		return Route{Dst: dst}, true
	case n.Type == unix.RTN_UNICAST && n.Priority == tunnelMetric && n.LinkIndex == tunnel && tunnel != 0 && n.Gw == nil:
		return Route{Dst: dst, Tunnel: true}, true
	}
	return Route{}, false
}

// replace makes a route, or takes over one that stands in its place.
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

// remove deletes a route; one that is gone already is fine.
func remove(n netlink.Route) error {
	if err := netlink.RouteDel(&n); err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("delete route %s: %w", describe(n), err)
	}
	return nil
}

func describe(n netlink.Route) string {
	if n.Type == unix.RTN_UNREACHABLE {
		return fmt.Sprintf("%v unreachable", n.Dst)
	}
	return fmt.Sprintf("%v through the tunnel", n.Dst)
}

// ipNet is the edge to netlink's form of a prefix.
func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}
