package conn

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// Routes asks the kernel's routing table by which device datagrams leave, and tells when the answer
// may have changed.
type Routes struct {
	events *nl.NetlinkSocket
	ask    *netlink.Handle
}

// ErrSourceGone is the error of Device for a source address that is not an address of this host.
var ErrSourceGone = errors.New("the source is not an address of this host")

// OpenRoutes opens the routing table of the network namespace of the calling thread. The caller
// closes it.
func OpenRoutes() (*Routes, error) {
	// A link that goes down takes its IPv4 routes along without announcing them.
	events, err := nl.Subscribe(unix.NETLINK_ROUTE, unix.RTNLGRP_LINK, unix.RTNLGRP_IPV4_IFADDR, unix.RTNLGRP_IPV6_IFADDR,
		unix.RTNLGRP_IPV4_ROUTE, unix.RTNLGRP_IPV6_ROUTE, unix.RTNLGRP_IPV4_RULE, unix.RTNLGRP_IPV6_RULE)
	if err != nil {
		return nil, fmt.Errorf("watch routes: %w", err)
	}
	ask, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		events.Close()
		return nil, fmt.Errorf("read routes: %w", err)
	}
	return &Routes{events: events, ask: ask}, nil
}

// Wait waits until a route, a rule, an address or a link has changed, or announcements were lost.
// After Close it returns an error.
func (r *Routes) Wait() error {
	if _, _, err := r.events.Receive(); err != nil && !errors.Is(err, unix.ENOBUFS) {
		return fmt.Errorf("watch routes: %w", err)
	}
	return nil
}

// Device returns the index of the device by which datagrams to an address leave that are sent from
// source (the zero Addr: any) with a firewall mark. One goroutine at a time may call it.
func (r *Routes) Device(to, source netip.Addr, mark uint32) (uint32, error) {
	options := &netlink.RouteGetOptions{Mark: mark}
	if source.IsValid() {
		options.SrcAddr = net.IP(source.AsSlice())
	}
	if n, err := strconv.ParseUint(to.Zone(), 10, 31); err == nil {
		options.OifIndex = int(n)
	}
	routes, err := r.ask.RouteGetWithOptions(net.IP(to.AsSlice()), options)
	switch {
	case errors.Is(err, unix.EINVAL) && source.IsValid():
		return 0, ErrSourceGone
	case err != nil:
		return 0, fmt.Errorf("read route to %s: %w", to, err)
	case len(routes) == 0:
		return 0, fmt.Errorf("read route to %s: %w", to, unix.ENETUNREACH)
	}
	return uint32(routes[0].LinkIndex), nil
}

// Close ends Wait and closes the sockets.
func (r *Routes) Close() {
	r.events.Close()
	r.ask.Close()
}
