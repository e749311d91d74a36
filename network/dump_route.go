package network

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/loden-net/loden/config/opt"
	"github.com/loden-net/loden/config/prefix"
)

// routeHeader is the fixed part of a route's message.
type routeHeader struct {
	family   opt.Family
	bits     int // of the destination's prefix
	table    uint8
	protocol uint8
	kind     uint8 // RTN_UNICAST, RTN_UNREACHABLE, …
}

// kernelRoute is a route as the kernel lists it.
type kernelRoute struct {
	routeHeader
	dst     netip.Prefix
	metric  uint32
	links   []int      // interface indexes: the route's own and each hop's
	gateway netip.Addr // of the next hop
	source  netip.Addr // the preferred source
}

// routes lists the routes of a family's main table for which wanted is true.
func (c *kernelConn) routes(f opt.Family, wanted func(routeHeader) bool) ([]kernelRoute, error) {
	var out []kernelRoute
	request := &nl.RtMsg{RtMsg: unix.RtMsg{Family: uint8(netlinkFamily(f)), Table: unix.RT_TABLE_MAIN}}
	err := c.dump(unix.RTM_GETROUTE, request, func() { out = nil }, func(body []byte) {
		h, ok := parseRouteHeader(body)
		if !ok || h.family != f || h.table != unix.RT_TABLE_MAIN || !wanted(h) {
			return
		}
		out = append(out, parseKernelRoute(h, body))
	})
	if errors.Is(err, unix.ENOENT) { // the kernel has not made the main table yet
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list %s routes: %w", f, err)
	}
	return out, nil
}

// parseRouteHeader reads the fixed part of an RTM_NEWROUTE or RTM_DELROUTE message. It is
// false for another family, and for an entry of the kernel's route cache.
func parseRouteHeader(body []byte) (routeHeader, bool) {
	if len(body) < unix.SizeofRtMsg {
		return routeHeader{}, false
	}
	h := routeHeader{bits: int(body[1]), table: body[4], protocol: body[5], kind: body[7]}
	switch body[0] {
	case unix.AF_INET:
	case unix.AF_INET6:
		h.family = opt.V6
	default:
		return routeHeader{}, false
	}
	return h, binary.NativeEndian.Uint32(body[8:])&unix.RTM_F_CLONED == 0
}

// parseKernelRoute reads the attributes that follow the header.
func parseKernelRoute(h routeHeader, body []byte) kernelRoute {
	r := kernelRoute{routeHeader: h}
	addr := netip.IPv4Unspecified()
	if h.family == opt.V6 {
		addr = netip.IPv6Unspecified()
	}
	for kind, value := range attributes(body[unix.SizeofRtMsg:]) {
		switch kind {
		case unix.RTA_DST:
			if a, ok := netip.AddrFromSlice(value); ok {
				addr = a
			}
		case unix.RTA_PRIORITY:
			r.metric = uint32Value(value)
		case unix.RTA_OIF:
			r.links = append(r.links, int(uint32Value(value)))
		case unix.RTA_GATEWAY:
			r.gateway, _ = netip.AddrFromSlice(value)
		case unix.RTA_VIA: // struct rtvia: the address of another family
			if len(value) > 2 {
				r.gateway, _ = netip.AddrFromSlice(value[2:])
			}
		case unix.RTA_PREFSRC:
			r.source, _ = netip.AddrFromSlice(value)
		case unix.RTA_MULTIPATH:
			r.links = append(r.links, hops(value)...)
		}
	}
	r.dst = netip.PrefixFrom(addr, h.bits)
	return r
}

// ours reads a route with our mark back; false means that it has none of the shapes that
// this package makes. tunnel is the tunnel's interface index, unreachable the metric of its
// daemon's unreachable routes.
func (r kernelRoute) ours(tunnel int, unreachable uint32) (Route, bool) {
	switch {
	case r.kind == unix.RTN_UNREACHABLE && r.metric == unreachable:
		return Route{Dst: r.dst}, true
	case r.kind == unix.RTN_UNICAST && r.metric == tunnelMetric && tunnel != 0 && slices.Equal(r.links, []int{tunnel}) && !r.gateway.IsValid():
		return Route{Dst: r.dst, Tunnel: true}, true
	}
	return Route{}, false
}

// remove deletes the route; an absent route is no error.
func (r kernelRoute) remove() error {
	n := netlink.Route{
		Dst: prefix.IPNet(r.dst), Table: unix.RT_TABLE_MAIN, Type: int(r.kind), Priority: int(r.metric),
		Protocol: netlink.RouteProtocol(r.protocol), Scope: netlink.SCOPE_NOWHERE, // the kernel then takes any scope
	}
	if len(r.links) == 1 {
		n.LinkIndex = r.links[0]
	}
	if err := netlink.RouteDel(&n); err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("delete route %s: %w", r, err)
	}
	return nil
}

func (r kernelRoute) String() string {
	if r.kind == unix.RTN_UNREACHABLE {
		return r.dst.String() + " unreachable"
	}
	return r.dst.String() + " through the tunnel"
}

// hops returns the interface indexes of a multipath route: a sequence of struct rtnexthop
// (length, flags, hops, index), each followed by attributes.
func hops(value []byte) []int {
	var out []int
	for len(value) >= unix.SizeofRtNexthop {
		size := (int(binary.NativeEndian.Uint16(value)) + 3) &^ 3
		out = append(out, int(int32(binary.NativeEndian.Uint32(value[4:]))))
		if size < unix.SizeofRtNexthop || size > len(value) {
			break
		}
		value = value[size:]
	}
	return out
}

// netlinkFamily returns the kernel's number of a family.
func netlinkFamily(f opt.Family) int {
	if f == opt.V6 {
		return unix.AF_INET6
	}
	return unix.AF_INET
}
