package network

import (
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/loden-net/loden/config"
	"github.com/loden-net/loden/config/opt"
	"github.com/loden-net/loden/config/set"
	"github.com/loden-net/loden/subnet"
)

// HostState is everything that the plan depends on and that the host's kernel decides. The
// zero HostState is a host that was not observed yet.
type HostState struct {
	Uplinks opt.Dual[Uplink]
	Exits   set.Names // the uplinks and the interfaces of all default routes

	// Outward is every interface that leads off the node, for the guard: the exits, and the
	// links to other networks (see leadsOff).
	Outward set.Names

	// Underlay is the prefixes that the exits are connected to. Where hosts are numbered
	// from the overlay's own range the guard must not take them for pods.
	Underlay set.Prefixes

	// AcceptRA is the interfaces that learn by router advertisements from the kernel, and
	// would stop to when forwarding is switched on.
	AcceptRA set.Names

	Shadows []Shadow // foreign routes into the overlay

	Gateways map[string]netip.Addr // of the default routes, by "gateway of INTERFACE"

	NoIPv6 bool // the kernel runs without IPv6
}

// Direct returns the prefixes to which the host has routes of its own: its LANs, and foreign
// routes inside the overlay. It is an argument of RoutedIntoTunnel.
func (s HostState) Direct() []netip.Prefix {
	out := s.Avoid()
	for _, f := range opt.Families() {
		out = slices.AppendSeq(out, s.Underlay.Of(f))
	}
	return out
}

// Avoid returns the prefixes that this node's subnets must not overlap.
func (s HostState) Avoid() []netip.Prefix {
	var out []netip.Prefix
	for _, r := range s.Shadows {
		out = append(out, r.Dst)
	}
	return out
}

// Observer observes the host for a node. Make it with NewObserver. Its methods are safe
// for concurrent use, and act in the network namespace of the calling thread.
type Observer struct {
	tunnel string
	choice config.UplinkChoice

	mu      sync.Mutex            // guards the fields below
	fresh   opt.Option[Inventory] // the last inventory, until a change was made or a part has used it
	current overlay               // of the last Observe
	notify  func()                // of Watch; nil while Watch does not run
}

// overlay is the prefixes of the overlay and this node's part of them. The zero overlay is
// not known yet.
type overlay struct{ networks, subnets opt.Dual[netip.Prefix] }

// overlayOf returns the overlay of the inputs.
func overlayOf(in Inputs) overlay {
	return overlay{
		networks: opt.Map(in.Network.Ranges, func(_ opt.Family, r config.Range) netip.Prefix { return r.Network }),
		subnets:  in.Lease.Or(subnet.Lease{}).Subnets,
	}
}

// shadowed reports whether a foreign route to dst wins over the tunnel's route: it leads
// into the overlay, and not to this node's own pods.
func (o overlay) shadowed(dst netip.Prefix) bool {
	f := opt.FamilyOf(dst.Addr())
	network, ok := o.networks.Of(f).Get()
	if !ok || dst.Bits() < network.Bits() || !network.Contains(dst.Addr()) {
		return false
	}
	own, ok := o.subnets.Of(f).Get()
	return !(ok && dst.Bits() >= own.Bits() && own.Contains(dst.Addr()))
}

// overlay returns the overlay of the last Observe.
func (o *Observer) overlay() overlay {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.current
}

// contains reports whether the prefix of the address's family contains it.
func contains(d opt.Dual[netip.Prefix], a netip.Addr) bool {
	p, ok := d.Of(opt.FamilyOf(a)).Get()
	return ok && p.Contains(a)
}

// NewObserver returns an Observer without an observation. It needs no Close.
// tunnel is the name of the tunnel's interface.
func NewObserver(tunnel string, c config.UplinkChoice) *Observer {
	return &Observer{tunnel: tunnel, choice: c}
}

// Observe lists links, addresses and routes once and returns the complete state of the host.
// It changes nothing. An error says that the kernel did not answer, or that no uplink fits
// the settings; it then names the remedy.
func (o *Observer) Observe(in Inputs) (HostState, error) {
	current := overlayOf(in)
	v, err := readInventory(o.tunnel, o.choice.CanReach, current)
	if err != nil {
		return HostState{}, err
	}
	o.mu.Lock()
	o.fresh, o.current = opt.Some(v), current
	o.mu.Unlock()
	return hostState(o.choice, v, in)
}

// again calls Watch's notify after a time.
func (o *Observer) again(after time.Duration) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.notify != nil {
		time.AfterFunc(after, o.notify)
	}
}

// listen sets Watch's notify, nil for none.
func (o *Observer) listen(notify func()) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.notify = notify
}

// Expire says that the host was changed since the last Observe.
func (o *Observer) Expire() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.fresh = opt.None[Inventory]()
}

// inventory returns the inventory of the last Observe, once, when no change was made since;
// else a new inventory.
func (o *Observer) inventory() (Inventory, error) {
	o.mu.Lock()
	v, ok := o.fresh.Get()
	o.fresh = opt.None[Inventory]()
	o.mu.Unlock()
	if ok {
		return v, nil
	}
	return readInventory(o.tunnel, opt.None[netip.Addr](), overlay{})
}

// hostState derives the state of the host from the kernel's lists. It is pure.
func hostState(c config.UplinkChoice, v Inventory, in Inputs) (HostState, error) {
	up, err := Uplinks(c, v, announced(in))
	var exits []string
	for _, u := range up.All() {
		exits = append(exits, u.Name)
	}
	gateways := map[string]netip.Addr{}
	for _, r := range v.Routes {
		exits = append(exits, r.Link)
		if a, ok := r.Gateway.Get(); ok {
			gateways["gateway of "+r.Link] = a
		}
	}
	s := HostState{Uplinks: up, Exits: set.NewNames(exits...), Shadows: v.Inside, Gateways: gateways, NoIPv6: v.NoIPv6}
	var connected []netip.Prefix
	for name := range s.Exits.All() {
		l, _ := v.link(name)
		for _, a := range l.Addresses {
			connected = append(connected, netip.PrefixFrom(a.Addr, a.Bits))
		}
	}
	s.Underlay = set.NewPrefixes(connected...)
	outward, learning := exits, []string(nil)
	for _, l := range v.Links {
		if v.leadsOff(l, overlayOf(in)) {
			outward = append(outward, l.Name)
		}
		if l.AcceptRA == 1 || l.AcceptRA == 2 {
			learning = append(learning, l.Name)
		}
	}
	s.Outward, s.AcceptRA = set.NewNames(outward...), set.NewNames(learning...)
	return s, err
}

// announced returns the address that this node announces now in each family: the address of
// the last observed uplink, else of the lease.
func announced(in Inputs) opt.Dual[netip.Addr] {
	out := opt.Map(in.Lease.Or(subnet.Lease{}).Endpoints, func(_ opt.Family, e netip.AddrPort) netip.Addr { return e.Addr() })
	for f, u := range in.Uplinks.All() {
		out = out.With(f, u.Address)
	}
	return out
}
