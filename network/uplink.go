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
	"github.com/loden-net/loden/config/set"
)

// Uplink is how this node reaches the underlay in one family.
type Uplink struct {
	Name    string     // interface
	MTU     int        // bytes
	Address netip.Addr // local address on the interface
	Public  netip.Addr // address that is announced; differs from Address behind a NAT
	RA      bool       // the default route was learned by router advertisement
}

// View is what of the machine the choice of uplinks depends on.
type View struct {
	Links  []Link
	Routes []DefaultRoute
	Reach  opt.Option[Reach] // the answer for --iface-can-reach
}

// Link is an interface of the machine that may be an uplink.
type Link struct {
	Name      string
	MTU       int // bytes
	Addresses []LinkAddress
}

// LinkAddress is an address on an interface and what the kernel says of it.
type LinkAddress struct {
	Addr       netip.Addr
	Permanent  bool // not learned with a lifetime
	Temporary  bool // RFC 8981
	Deprecated bool
}

// DefaultRoute is a default route of one family.
type DefaultRoute struct {
	Family opt.Family
	Link   string
	Metric int // the lower one is used
	RA     bool
}

// Reach is the interface and source address by which the kernel reaches an address.
type Reach struct {
	Link   string
	Source netip.Addr
}

// errNoUplink is returned with what to do about it.
var errNoUplink = errors.New("no uplink: this machine has no default route with a usable address; name the interface with --iface")

// Outlook is how this node sees the world outside it. It is comparable with ==.
type Outlook struct {
	Uplinks opt.Dual[Uplink]
	Exits   set.Names // every interface that leads off the node, the uplinks' among them

	// Underlay is the prefixes that the exits are connected to. Where hosts are numbered
	// from the overlay's own range the guard must not take them for pods.
	Underlay set.Prefixes
}

// Survey chooses the uplinks and names every other interface that leads off the node as
// well: those with a default route. The Underlay is the caller's to fill in.
func Survey(n *config.Node, view View) (Outlook, error) {
	up, err := Uplinks(n, view)
	var names []string
	for _, u := range up.All() {
		names = append(names, u.Name)
	}
	for _, r := range view.Routes {
		names = append(names, r.Link)
	}
	return Outlook{Uplinks: up, Exits: set.NewNames(names...)}, err
}

// Uplinks chooses the uplink of each family in flannel's order: every --iface, every
// --iface-regex, --iface-can-reach; without any of them the interface that holds
// --public-ip, else the one of the default route with the lowest metric. A family without
// a usable address is absent; none at all is an error.
func Uplinks(n *config.Node, view View) (opt.Dual[Uplink], error) {
	var up opt.Dual[Uplink]
	named, err := namedUplink(n, view)
	if err != nil {
		return up, err
	}
	for _, f := range opt.Families() {
		public := publicAddress(n, f)
		u, err := familyUplink(f, named, public, view)
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

// choice is an interface that the settings point at, and perhaps the very address.
type choice struct {
	link Link
	addr opt.Option[netip.Addr]
}

// namedUplink returns what --iface, --iface-regex and --iface-can-reach point at: None
// when none of them is set, an error when they are and nothing fits.
func namedUplink(n *config.Node, view View) (opt.Option[choice], error) {
	for _, want := range n.Ifaces {
		if c, ok := findIface(want, view.Links); ok {
			return opt.Some(c), nil
		}
	}
	for _, expr := range n.IfaceRegexes {
		re, err := regexp.Compile(expr)
		if err != nil {
			return opt.None[choice](), fmt.Errorf("--iface-regex %q: %w", expr, err)
		}
		if c, ok := matchIface(re, view.Links); ok {
			return opt.Some(c), nil
		}
	}
	if reach, ok := view.Reach.Get(); ok {
		if link, ok := linkNamed(reach.Link, view.Links); ok {
			return opt.Some(choice{link, opt.Some(reach.Source)}), nil
		}
	}
	if len(n.Ifaces) == 0 && len(n.IfaceRegexes) == 0 && n.IfaceCanReach == "" {
		return opt.None[choice](), nil
	}
	var have []string
	for _, l := range view.Links {
		have = append(have, l.Name)
	}
	return opt.None[choice](), fmt.Errorf("no interface fits --iface, --iface-regex or --iface-can-reach: this machine has %s", strings.Join(have, ", "))
}

// findIface finds an interface by name, or by an address that it holds.
func findIface(want string, links []Link) (choice, bool) {
	if l, ok := linkNamed(want, links); ok {
		return choice{link: l}, true
	}
	addr, err := netip.ParseAddr(want)
	if err != nil {
		return choice{}, false
	}
	if l, ok := holder(addr, links); ok {
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

// familyUplink returns the uplink of one family, if it has one.
func familyUplink(f opt.Family, named opt.Option[choice], public opt.Option[netip.Addr], view View) (opt.Option[Uplink], error) {
	route, hasRoute := defaultRoute(f, view.Routes)
	if c, ok := named.Get(); ok {
		if a, ok := c.addr.Get(); ok && opt.FamilyOf(a) == f {
			return opt.Some(Uplink{Name: c.link.Name, MTU: c.link.MTU, Address: a, RA: hasRoute && route.RA && route.Link == c.link.Name}), nil
		}
		return uplinkOn(f, c.link, hasRoute && route.RA && route.Link == c.link.Name), nil
	}
	if a, ok := public.Get(); ok {
		l, ok := holder(a, view.Links)
		if !ok {
			return opt.None[Uplink](), fmt.Errorf("--public-ip %s is on no interface of this machine: to announce an address behind a NAT, name the interface with --iface too", a)
		}
		return opt.Some(Uplink{Name: l.Name, MTU: l.MTU, Address: a, RA: hasRoute && route.RA && route.Link == l.Name}), nil
	}
	if !hasRoute {
		return opt.None[Uplink](), nil
	}
	link, ok := linkNamed(route.Link, view.Links)
	if !ok {
		return opt.None[Uplink](), nil
	}
	return uplinkOn(f, link, route.RA), nil
}

// uplinkOn returns the uplink on a link with its best address of the family.
func uplinkOn(f opt.Family, l Link, ra bool) opt.Option[Uplink] {
	a, ok := bestAddress(f, l.Addresses)
	if !ok {
		return opt.None[Uplink]()
	}
	return opt.Some(Uplink{Name: l.Name, MTU: l.MTU, Address: a, RA: ra})
}

// bestAddress prefers a permanent address to a learned one, and any other to an IPv4
// link-local one. Temporary, deprecated and IPv6 link-local addresses are no node's address.
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

// defaultRoute returns the family's default route with the lowest metric.
func defaultRoute(f opt.Family, routes []DefaultRoute) (DefaultRoute, bool) {
	fit := slices.DeleteFunc(slices.Clone(routes), func(r DefaultRoute) bool { return r.Family != f })
	if len(fit) == 0 {
		return DefaultRoute{}, false
	}
	return slices.MinFunc(fit, func(a, b DefaultRoute) int { return cmp.Compare(a.Metric, b.Metric) }), true
}

func publicAddress(n *config.Node, f opt.Family) opt.Option[netip.Addr] {
	text := n.PublicIP
	if f == opt.V6 {
		text = n.PublicIPv6
	}
	a, err := netip.ParseAddr(text)
	if err != nil { // empty; anything else was refused by Validate
		return opt.None[netip.Addr]()
	}
	return opt.Some(a)
}

func linkNamed(name string, links []Link) (Link, bool) {
	i := slices.IndexFunc(links, func(l Link) bool { return l.Name == name })
	if i < 0 {
		return Link{}, false
	}
	return links[i], true
}

// holder returns the link that holds an address.
func holder(a netip.Addr, links []Link) (Link, bool) {
	for _, l := range links {
		if slices.ContainsFunc(l.Addresses, func(la LinkAddress) bool { return la.Addr == a }) {
			return l, true
		}
	}
	return Link{}, false
}
