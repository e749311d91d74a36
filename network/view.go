package network

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/loden-net/loden/config/opt"
)

// Look reads from the kernel what the choice of uplinks depends on. The tunnel and the
// loopback are left out: neither can be an uplink. reach is the address of
// --iface-can-reach, if there is one.
func Look(tunnel string, reach opt.Option[netip.Addr]) (View, error) {
	links, err := dump(netlink.LinkList)
	if err != nil {
		return View{}, fmt.Errorf("list links: %w", err)
	}
	var view View
	byIndex := map[int]string{}
	for _, l := range links {
		attrs := l.Attrs()
		byIndex[attrs.Index] = attrs.Name
		if attrs.Name == tunnel || attrs.Flags&net.FlagLoopback != 0 {
			continue
		}
		addrs, err := linkAddresses(l)
		if err != nil {
			return View{}, err
		}
		view.Links = append(view.Links, Link{Name: attrs.Name, MTU: attrs.MTU, Addresses: addrs})
	}
	if view.Routes, err = defaultRoutes(byIndex, tunnel); err != nil {
		return View{}, err
	}
	if a, ok := reach.Get(); ok {
		view.Reach = lookUpReach(a, byIndex)
	}
	return view, nil
}

// linkAddresses lists the usable addresses of one link.
func linkAddresses(l netlink.Link) ([]LinkAddress, error) {
	addrs, err := dump(func() ([]netlink.Addr, error) { return netlink.AddrList(l, netlink.FAMILY_ALL) })
	if err != nil {
		return nil, fmt.Errorf("list addresses of %s: %w", l.Attrs().Name, err)
	}
	var out []LinkAddress
	for _, a := range addrs {
		ip, ok := netip.AddrFromSlice(a.IP)
		if !ok || a.Flags&unix.IFA_F_DADFAILED != 0 {
			continue
		}
		out = append(out, LinkAddress{
			Addr:       ip.Unmap(),
			Permanent:  a.Flags&unix.IFA_F_PERMANENT != 0,
			Temporary:  ip.Is6() && !ip.Is4In6() && a.Flags&unix.IFA_F_SECONDARY != 0, // IFA_F_TEMPORARY is the same bit
			Deprecated: a.Flags&unix.IFA_F_DEPRECATED != 0,
		})
	}
	return out, nil
}

// defaultRoutes lists the default routes of the main table, each hop of a multipath one.
func defaultRoutes(byIndex map[int]string, tunnel string) ([]DefaultRoute, error) {
	var out []DefaultRoute
	for _, f := range opt.Families() {
		routes, err := dump(func() ([]netlink.Route, error) {
			return netlink.RouteListFiltered(netlinkFamily(f), &netlink.Route{Table: unix.RT_TABLE_MAIN}, netlink.RT_FILTER_TABLE)
		})
		if err != nil {
			return nil, fmt.Errorf("list %s routes: %w", f, err)
		}
		for _, r := range routes {
			if r.Dst != nil && !isDefault(r.Dst) || r.Type != unix.RTN_UNICAST {
				continue
			}
			hops := []int{r.LinkIndex}
			for _, hop := range r.MultiPath {
				hops = append(hops, hop.LinkIndex)
			}
			for _, index := range hops {
				if name, ok := byIndex[index]; ok && name != tunnel {
					out = append(out, DefaultRoute{Family: f, Link: name, Metric: r.Priority, RA: r.Protocol == unix.RTPROT_RA})
				}
			}
		}
	}
	return out, nil
}

func isDefault(n *net.IPNet) bool {
	ones, _ := n.Mask.Size()
	return ones == 0 && n.IP.IsUnspecified()
}

// lookUpReach asks the kernel how it would reach an address; no answer is no reach.
func lookUpReach(a netip.Addr, byIndex map[int]string) opt.Option[Reach] {
	routes, err := netlink.RouteGet(a.AsSlice())
	if err != nil || len(routes) == 0 {
		return opt.None[Reach]()
	}
	source, ok := netip.AddrFromSlice(routes[0].Src)
	if !ok {
		return opt.None[Reach]()
	}
	return opt.Some(Reach{Link: byIndex[routes[0].LinkIndex], Source: source.Unmap()})
}

// netlinkFamily returns the kernel's number of a family.
func netlinkFamily(f opt.Family) int {
	if f == opt.V6 {
		return unix.AF_INET6
	}
	return unix.AF_INET
}

// dumpTries bounds how often a torn dump is asked for again.
const dumpTries = 5

// dump lists something over netlink. A dump that the kernel tore because the table changed
// meanwhile (ErrDumpInterrupted) is asked for again; the last torn one is used, since the
// next pass looks again.
func dump[T any](list func() ([]T, error)) ([]T, error) {
	var out []T
	var err error
	for range dumpTries {
		out, err = list()
		if !errors.Is(err, netlink.ErrDumpInterrupted) {
			return out, err
		}
	}
	return slices.Clip(out), nil
}
