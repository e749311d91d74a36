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
	Address netip.Addr // local address on the interface
	Public  netip.Addr // address that is announced; differs from Address behind a NAT
	RA      bool       // the default route was learned by router advertisement
}

// errNoUplink names the remedy.
var errNoUplink = errors.New("no uplink: this host has no default route with a usable address; name the interface with --iface")

// Uplinks chooses the uplink of each family in flannel's order: every --iface, every
// --iface-regex, --iface-can-reach; without any of them the interface that holds
// --public-ip, else the interface of the default route with the lowest metric. A family
// without a usable address is absent; a host without any uplink is an error.
func Uplinks(c config.UplinkChoice, v Inventory) (opt.Dual[Uplink], error) {
	var up opt.Dual[Uplink]
	named, err := namedUplink(c, v)
	if err != nil {
		return up, err
	}
	for _, f := range opt.Families() {
		public := c.Public.Of(f)
		u, err := familyUplink(f, named, public, v)
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
		if found, ok := matchIface(re, v.Links); ok {
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
	return opt.None[choice](), fmt.Errorf("no interface fits --iface, --iface-regex or --iface-can-reach: this host has %s", strings.Join(have, ", "))
}

// findIface finds an interface by its name, or by an address that it holds.
func findIface(want string, v Inventory) (choice, bool) {
	if l, ok := v.link(want); ok {
		return choice{link: l}, true
	}
	addr, err := netip.ParseAddr(want)
	if err != nil {
		return choice{}, false
	}
	if l, ok := v.holder(addr); ok {
		return choice{l, opt.Some(addr)}, true
	}
	return choice{}, false
}

// matchIface finds the first interface with an address that matches, else with a name.
func matchIface(re *regexp.Regexp, links []Link) (choice, bool) {
	for _, l := range links {
		for _, a := range l.Addresses {
			if re.MatchString(a.Addr.String()) {
				return choice{l, opt.Some(a.Addr)}, true
			}
		}
	}
	for _, l := range links {
		if re.MatchString(l.Name) {
			return choice{link: l}, true
		}
	}
	return choice{}, false
}

// familyUplink returns the uplink of a family, if the host has an uplink in it.
func familyUplink(f opt.Family, named opt.Option[choice], public opt.Option[netip.Addr], v Inventory) (opt.Option[Uplink], error) {
	route, hasRoute := v.defaultRoute(f)
	on := func(l Link, a netip.Addr) opt.Option[Uplink] {
		return opt.Some(Uplink{Name: l.Name, MTU: l.MTU, Address: a, RA: hasRoute && route.RA && route.Link == l.Name})
	}
	best := func(l Link) opt.Option[Uplink] {
		if a, ok := bestAddress(f, l.Addresses); ok {
			return on(l, a)
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
		l, ok := v.holder(a)
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

// bestAddress prefers a permanent address to a learned address, and any other address to an
// IPv4 link-local address. Temporary, deprecated and IPv6 link-local addresses are never a
// node's address.
func bestAddress(f opt.Family, list []LinkAddress) (netip.Addr, bool) {
	fit := slices.DeleteFunc(slices.Clone(list), func(a LinkAddress) bool {
		return opt.FamilyOf(a.Addr) != f || a.Temporary || a.Deprecated || a.Addr.IsLoopback() ||
			a.Addr.Is6() && a.Addr.IsLinkLocalUnicast()
	})
	if len(fit) == 0 {
		return netip.Addr{}, false
	}
	rank := func(a LinkAddress) int {
		n := 0
		if !a.Permanent {
			n++
		}
		if a.Addr.IsLinkLocalUnicast() {
			n += 2
		}
		return n
	}
	return slices.MinFunc(fit, func(a, b LinkAddress) int { return cmp.Compare(rank(a), rank(b)) }).Addr, true
}
