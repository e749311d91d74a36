package network

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// Watch calls notify when the kernel announces a change that a pass would act on, until ctx
// ends; then it returns nil. notify must not block. These changes are:
//
//   - an interface that can be an uplink came, went, went up or down, or has another name or MTU;
//   - an address of a global scope came, went, or became usable or deprecated;
//   - a default route came, went or changed;
//   - a route of ours went, or a route of another program into the overlay came or went;
//   - forwarding was switched on or off for all interfaces.
//
// The links of pods come and go without a call. After an overrun of the subscription, which
// loses announcements, Watch subscribes again and calls notify.
func (o *Observer) Watch(ctx context.Context, notify func()) error {
	o.listen(notify)
	defer o.listen(nil)
	for {
		if err := o.watchOnce(ctx, notify); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(resubscribe):
			notify()
		}
	}
}

// resubscribe is the pause before Watch subscribes again.
const resubscribe = time.Second

// receiveBuffer holds the announcements that arrive while a pass holds the processors, in
// bytes: a routing daemon that changes thousands of routes announces each.
const receiveBuffer = 1 << 20

// watchOnce watches until ctx ends or the subscription overruns.
func (o *Observer) watchOnce(ctx context.Context, notify func()) error {
	s, err := nl.Subscribe(unix.NETLINK_ROUTE, unix.RTNLGRP_LINK, unix.RTNLGRP_IPV4_IFADDR, unix.RTNLGRP_IPV6_IFADDR,
		unix.RTNLGRP_IPV4_ROUTE, unix.RTNLGRP_IPV6_ROUTE, unix.RTNLGRP_IPV4_NETCONF, unix.RTNLGRP_IPV6_NETCONF)
	if err != nil {
		return fmt.Errorf("watch the kernel's network: %w", err)
	}
	stop := context.AfterFunc(ctx, s.Close) // Receive then returns
	defer func() {
		if stop() {
			s.Close()
		}
	}()
	_ = s.SetReceiveBufferSize(receiveBuffer, false)
	f, err := newEventFilter(o.tunnel, o.overlay)
	if err != nil {
		return err
	}
	for {
		messages, _, err := s.Receive()
		switch {
		case ctx.Err() != nil, errors.Is(err, unix.ENOBUFS):
			return nil
		case err != nil:
			return fmt.Errorf("watch the kernel's network: %w", err)
		}
		matters := false
		for _, m := range messages {
			matters = f.matters(m.Header.Type, m.Data) || matters
		}
		if matters {
			notify()
		}
	}
}

// eventFilter picks the announcements that matter. It remembers links and
// addresses, because announcements repeat unchanged properties: a router advertisement
// announces each address again, with a new lifetime.
type eventFilter struct {
	tunnel    string
	overlay   func() overlay
	links     map[int]kernelLink
	addresses map[int]map[LinkAddress]bool // of global scope, by interface index
	forward   map[uint8]uint32             // the last value for all interfaces, by AF_INET, AF_INET6
}

// newEventFilter returns a filter that knows the links and addresses that exist now.
func newEventFilter(tunnel string, current func() overlay) (*eventFilter, error) {
	f := &eventFilter{
		tunnel: tunnel, overlay: current,
		links: map[int]kernelLink{}, addresses: map[int]map[LinkAddress]bool{}, forward: map[uint8]uint32{},
	}
	conn, err := dialKernel()
	if err != nil {
		return nil, err
	}
	defer conn.close()
	links, err := conn.links()
	if err != nil {
		return nil, err
	}
	for _, l := range links {
		f.links[l.index] = l
	}
	return f, conn.dumpAddresses(func() { clear(f.addresses) }, func(a kernelAddress) {
		f.address(unix.RTM_NEWADDR, a)
	})
}

// matters reports whether a message announces a change that matters, and remembers it.
func (f *eventFilter) matters(kind uint16, body []byte) bool {
	switch kind {
	case unix.RTM_NEWLINK, unix.RTM_DELLINK:
		l, ok := parseLink(body)
		// A bridge announces its ports with AF_BRIDGE; a wireless driver leaves the MTU out.
		return ok && body[0] == unix.AF_UNSPEC && l.mtu > 0 && f.link(kind, l)
	case unix.RTM_NEWADDR, unix.RTM_DELADDR:
		a, ok := parseAddress(body)
		return ok && f.address(kind, a)
	case unix.RTM_NEWROUTE, unix.RTM_DELROUTE:
		h, ok := parseRouteHeader(body)
		return ok && f.route(kind, h, body)
	case unix.RTM_NEWNETCONF:
		return f.netconf(body)
	}
	return false
}

// link judges an announced link. Links of pods do not matter, unless they hold an address
// of global scope: then they can be an uplink.
func (f *eventFilter) link(kind uint16, l kernelLink) bool {
	before, known := f.links[l.index]
	if kind == unix.RTM_DELLINK {
		delete(f.links, l.index)
		matters := known && f.canBeUplink(before)
		delete(f.addresses, l.index)
		return matters
	}
	l.flags &= unix.IFF_UP | unix.IFF_LOOPBACK
	before.flags &= unix.IFF_UP | unix.IFF_LOOPBACK
	f.links[l.index] = l
	return f.canBeUplink(l) && (!known || before != l)
}

// canBeUplink reports whether a link can be an uplink: it holds an address of global
// scope that is no pod's gateway, or it has no address yet and is of a kind that pods do not
// have.
func (f *eventFilter) canBeUplink(l kernelLink) bool {
	if l.name == f.tunnel {
		return false
	}
	subnets := f.overlay().subnets
	for a := range f.addresses[l.index] {
		if !contains(subnets, a.Addr) {
			return true
		}
	}
	return len(f.addresses[l.index]) == 0 && !l.forPods()
}

// address judges an announced address, on any link but the tunnel. A second announcement of
// the same address with the same properties does not matter.
func (f *eventFilter) address(kind uint16, a kernelAddress) bool {
	if a.scope == unix.RT_SCOPE_LINK || a.scope == unix.RT_SCOPE_HOST || f.links[a.link].name == f.tunnel {
		return false
	}
	if f.links[a.link].forPods() && contains(f.overlay().subnets, a.Addr) { // a pod's gateway
		return false
	}
	usable := a.flags&(unix.IFA_F_TENTATIVE|unix.IFA_F_DADFAILED) == 0 || a.flags&unix.IFA_F_OPTIMISTIC != 0
	have := f.addresses[a.link]
	before := have[a.LinkAddress]
	if have == nil {
		have = map[LinkAddress]bool{}
		f.addresses[a.link] = have
	}
	for other := range have { // the same address with other properties
		if other.Addr == a.Addr {
			delete(have, other)
		}
	}
	if kind == unix.RTM_DELADDR || !usable {
		if len(have) == 0 {
			delete(f.addresses, a.link)
		}
		return kind == unix.RTM_DELADDR || before
	}
	have[a.LinkAddress] = true
	return !before
}

// route judges an announced route of the main table. Routes to this node's own pods, which
// some CNI plugins make for each pod, do not matter.
func (f *eventFilter) route(kind uint16, h routeHeader, body []byte) bool {
	switch {
	case h.table != unix.RT_TABLE_MAIN:
		return false
	case h.protocol == protocol:
		return kind == unix.RTM_DELROUTE
	case h.bits == 0:
		return h.kind == unix.RTN_UNICAST
	}
	o := f.overlay()
	network, ok := o.networks.Of(h.family).Get()
	return ok && h.bits >= network.Bits() && o.shadowed(parseKernelRoute(h, body).dst)
}

// allInterfaces is the interface index of settings for all interfaces
// (NETCONFA_IFINDEX_ALL of linux/netconf.h).
const allInterfaces = -1

// Attributes of linux/netconf.h.
const (
	netconfIndex      = 1
	netconfForwarding = 2
)

// netconf judges an announced change of a setting in /proc/sys/net: only the switch that
// forwards packets of a whole family matters.
func (f *eventFilter) netconf(body []byte) bool {
	const header = 4 // struct netconfmsg: the family, padded
	if len(body) < header {
		return false
	}
	index, forwarding, found := int32(0), uint32(0), false
	for kind, value := range attributes(body[header:]) {
		switch {
		case kind == netconfIndex && len(value) >= 4:
			index = int32(binary.NativeEndian.Uint32(value))
		case kind == netconfForwarding && len(value) >= 4:
			forwarding, found = binary.NativeEndian.Uint32(value), true
		}
	}
	if index != allInterfaces || !found {
		return false
	}
	before, known := f.forward[body[0]]
	f.forward[body[0]] = forwarding
	return !known || before != forwarding
}
