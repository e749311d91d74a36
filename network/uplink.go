package network

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strings"

	"github.com/loden-net/loden/config"
	"github.com/loden-net/loden/config/opt"
)

// Uplink is this node's way into the underlay of a family.
type Uplink struct {
	Name    string     // interface
	MTU     int        // bytes
	Address netip.Addr // local address: on the interface, or on the loopback when the interface has none
	Public  netip.Addr // address that is announced; differs from Address behind a NAT
}

// errNoUplink names the remedy.
var errNoUplink = errors.New("no uplink: this host has no default route with a usable address; name the interface with --iface")

// Uplinks chooses the uplink of each family in flannel's order: every --iface, every
// --iface-regex, --iface-can-reach; without any of them the interface that holds
// --public-ip, else the interface of the default route with the lowest metric. Among the
// addresses of the interface see bestAddress; announced is the address that this node
// announces now. A family without a usable address is absent; a host without any uplink is
// an error.
func Uplinks(c config.UplinkChoice, v Inventory, announced opt.Dual[netip.Addr]) (opt.Dual[Uplink], error) {
	var up opt.Dual[Uplink]
	named, err := namedUplink(c, v)
	if err != nil {
		return up, err
	}
	for _, f := range opt.Families() {
		public := c.Public.Of(f)
		u, err := familyUplink(f, named, public, announced.Of(f), v)
		if err != nil {
			return up, err
		}
		if u, ok := u.Get(); ok {
			u.Public = public.Or(u.Address)
			up = up.With(f, u)
		}
	}
	if up.IsZero() {
		return up, errNoUplink
	}
	return up, nil
}

// choice is an interface that the settings name, with the address where they name that too.
type choice struct {
	link Link
	addr opt.Option[netip.Addr]
}

// namedUplink returns the interface that --iface, --iface-regex and --iface-can-reach name:
// None when none of them is set, an error when no interface fits them.
func namedUplink(c config.UplinkChoice, v Inventory) (opt.Option[choice], error) {
	for _, want := range c.Ifaces {
		if found, ok := findIface(want, v); ok {
			return opt.Some(found), nil
		}
	}
	for _, re := range c.Regexes {
		if found, ok := matchIface(re, v); ok {
			return opt.Some(found), nil
		}
	}
	if reach, ok := v.Reach.Get(); ok {
		if link, ok := v.link(reach.Link); ok {
			return opt.Some(choice{link, opt.Some(reach.Source)}), nil
		}
	}
	if len(c.Ifaces) == 0 && len(c.Regexes) == 0 && !c.CanReach.Present() {
		return opt.None[choice](), nil
	}
	var have []string
	for _, l := range v.Links {
		have = append(have, l.Name)
	}
	hint := ""
	if len(v.Loopback) > 0 {
		hint = fmt.Sprintf("; for the address %s of the loopback name the interface of the default route, or the address", v.Loopback[0].Addr)
	}
	return opt.None[choice](), fmt.Errorf("no interface fits --iface, --iface-regex or --iface-can-reach: this host has %s%s", strings.Join(have, ", "), hint)
}

// findIface finds an interface by its name, or by an address that it holds. For an address
// of the loopback, which the host has when its uplinks are unnumbered, that is the interface
// of the family's default route.
func findIface(want string, v Inventory) (choice, bool) {
	if l, ok := v.link(want); ok {
		return choice{link: l}, true
	}
	addr, err := netip.ParseAddr(want)
	if err != nil {
		return choice{}, false
	}
	if l, ok := v.carrier(addr); ok {
		return choice{l, opt.Some(addr)}, true
	}
	return choice{}, false
}

// matchIface finds the first interface with an address that matches, else with a name.
func matchIface(re *regexp.Regexp, v Inventory) (choice, bool) {
	for _, l := range v.Links {
		for _, a := range l.Addresses {
			if re.MatchString(a.Addr.String()) {
				return choice{l, opt.Some(a.Addr)}, true
			}
		}
	}
	for _, a := range v.Loopback {
		if l, ok := v.carrier(a.Addr); ok && re.MatchString(a.Addr.String()) {
			return choice{l, opt.Some(a.Addr)}, true
		}
	}
	for _, l := range v.Links {
		if re.MatchString(l.Name) {
			return choice{link: l}, true
		}
	}
	return choice{}, false
}

// familyUplink returns the uplink of a family, if the host has an uplink in it.
func familyUplink(f opt.Family, named opt.Option[choice], public, announced opt.Option[netip.Addr], v Inventory) (opt.Option[Uplink], error) {
	route, hasRoute := v.defaultRoute(f)
	on := func(l Link, a netip.Addr) opt.Option[Uplink] {
		return opt.Some(Uplink{Name: l.Name, MTU: l.MTU, Address: a})
	}
	best := func(l Link) opt.Option[Uplink] {
		r := opt.None[DefaultRoute]()
		if hasRoute && route.Link == l.Name {
			r = opt.Some(route)
		}
		if a, ok := bestAddress(f, l.Addresses, announced, r); ok {
			return on(l, a)
		}
		if r.Present() { // an unnumbered uplink: the host's address is on the loopback
			if a, ok := bestAddress(f, v.Loopback, announced, r); ok {
				return on(l, a)
			}
		}
		return opt.None[Uplink]()
	}
	if c, ok := named.Get(); ok {
		if a, ok := c.addr.Get(); ok && opt.FamilyOf(a) == f {
			return on(c.link, a), nil
		}
		return best(c.link), nil
	}
	if a, ok := public.Get(); ok {
		l, ok := v.carrier(a)
		if !ok {
			return opt.None[Uplink](), fmt.Errorf("--public-ip %s is on no interface of this host: to announce an address behind a NAT, name the interface with --iface too", a)
		}
		return on(l, a), nil
	}
	link, ok := v.link(route.Link)
	if !hasRoute || !ok {
		return opt.None[Uplink](), nil
	}
	return best(link), nil
}

// bestAddress returns the address that a node announces among the addresses of its uplink.
// route is the default route, where it leaves by that uplink. Each of these properties
// weighs more than all that follow it:
//
//  1. the address is not deprecated, not temporary, not IPv4 link-local;
//  2. it has a network, or is the preferred source of the default route. A virtual address
//     that moves between hosts comes as a single address (/32, /128);
//  3. it is announced now: each change costs every peer a handshake;
//  4. it is the preferred source of the default route;
//  5. it is in the gateway's network;
//  6. it is permanent, not learned.
//
// Loopback and IPv6 link-local addresses are never a node's address.
func bestAddress(f opt.Family, list []LinkAddress, announced opt.Option[netip.Addr], route opt.Option[DefaultRoute]) (netip.Addr, bool) {
	fit := slices.DeleteFunc(slices.Clone(list), func(a LinkAddress) bool {
		return opt.FamilyOf(a.Addr) != f || a.Addr.IsLoopback() || a.Addr.Is6() && a.Addr.IsLinkLocalUnicast()
	})
	if len(fit) == 0 {
		return netip.Addr{}, false
	}
	r := route.Or(DefaultRoute{})
	cost := func(a LinkAddress) int {
		isSource, isAnnounced := r.Source == opt.Some(a.Addr), announced == opt.Some(a.Addr)
		gateway, ok := r.Gateway.Get()
		near := ok && netip.PrefixFrom(a.Addr, a.Bits).Contains(gateway)
		cost := 0
		for i, worse := range []bool{
			!a.Permanent, !near, !isSource, !isAnnounced, a.hostPrefix() && !isSource,
			a.Addr.IsLinkLocalUnicast(), a.Temporary, a.Deprecated,
		} {
			if worse {
				cost |= 1 << i
			}
		}
		return cost
	}
	return slices.MinFunc(fit, func(a, b LinkAddress) int { return cmp.Compare(cost(a), cost(b)) }).Addr, true
}
