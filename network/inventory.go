package network

import (
	"net/netip"
	"slices"

	"github.com/loden-net/loden/config/opt"
)

// Inventory is the kernel's list of this host's links, addresses and routes, as far as a
// decision of this package depends on them. The zero Inventory is a host without network.
type Inventory struct {
	Links    []Link
	Loopback []LinkAddress // of global scope: a host with unnumbered uplinks has its address there
	Routes   []DefaultRoute
	Inside   []Shadow          // foreign routes into the overlay, on any device but the tunnel
	Reach    opt.Option[Reach] // the kernel's answer for --iface-can-reach
	NoIPv6   bool              // the kernel runs without IPv6

	tunnel int           // interface index of the tunnel; 0 while it does not exist
	own    []kernelRoute // the routes with our mark
}

// Link is an interface of this host. The tunnel and the loopback are not listed: neither
// can be an uplink.
type Link struct {
	Name      string
	MTU       int    // bytes
	Kind      string // the kernel's name of a virtual link's kind; "" for a physical link
	Up        bool
	Bridge    string // the bridge, bond or VRF that the link is a port of; "" for none
	AcceptRA  int    // the setting accept_ra, where the link learned a route or an address by a router advertisement
	Addresses []LinkAddress
}

// LinkAddress is an address on an interface with the kernel's properties of it.
type LinkAddress struct {
	Addr       netip.Addr
	Bits       int  // length of the prefix that is on the link
	Permanent  bool // the address has no lifetime: it was configured, not learned
	Temporary  bool // RFC 8981
	Deprecated bool // the preferred lifetime is over (RFC 4862)
	RA         bool // the kernel made the address from a router advertisement
}

// hostPrefix reports whether the address has a prefix of its own, as a virtual address that
// moves between hosts has.
func (a LinkAddress) hostPrefix() bool { return a.Bits == a.Addr.BitLen() }

// DefaultRoute is a family's default route in the main table.
type DefaultRoute struct {
	Family  opt.Family
	Link    string
	Metric  int                    // the kernel uses the route with the lowest metric
	RA      bool                   // a router advertisement is the route's origin
	Source  opt.Option[netip.Addr] // the preferred source
	Gateway opt.Option[netip.Addr]
}

// Shadow is a foreign route into the overlay: it wins over the tunnel's route, so that this
// node does not reach pods behind it.
type Shadow struct {
	Dst  netip.Prefix
	Link string // "" for a route without a device, such as an unreachable route
}

// Reach is the interface and the source address with which the kernel reaches an address.
type Reach struct {
	Link   string
	Source netip.Addr
}

// link returns the link with that name.
func (v Inventory) link(name string) (Link, bool) {
	i := slices.IndexFunc(v.Links, func(l Link) bool { return l.Name == name })
	if i < 0 {
		return Link{}, false
	}
	return v.Links[i], true
}

// holder returns the link that holds an address.
func (v Inventory) holder(a netip.Addr) (Link, bool) {
	for _, l := range v.Links {
		if slices.ContainsFunc(l.Addresses, func(la LinkAddress) bool { return la.Addr == a }) {
			return l, true
		}
	}
	return Link{}, false
}

// carrier returns the link that carries traffic from an address: its holder, and for an
// address of the loopback the link of the family's default route.
func (v Inventory) carrier(a netip.Addr) (Link, bool) {
	if l, ok := v.holder(a); ok {
		return l, true
	}
	r, ok := v.defaultRoute(opt.FamilyOf(a))
	if !ok || !slices.ContainsFunc(v.Loopback, func(la LinkAddress) bool { return la.Addr == a }) {
		return Link{}, false
	}
	return v.link(r.Link)
}

// defaultRoute returns the family's default route with the lowest metric.
func (v Inventory) defaultRoute(f opt.Family) (DefaultRoute, bool) {
	var best DefaultRoute
	found := false
	for _, r := range v.Routes {
		if r.Family == f && (!found || r.Metric < best.Metric) {
			best, found = r, true
		}
	}
	return best, found
}
