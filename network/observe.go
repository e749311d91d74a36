package network

import (
	"net/netip"
	"sync"

	"github.com/loden-net/loden/config"
	"github.com/loden-net/loden/config/opt"
	"github.com/loden-net/loden/config/set"
	"github.com/loden-net/loden/subnet"
)

// HostState is everything that the plan depends on and that the host's kernel decides. It is
// comparable with ==; the zero HostState is a host that was not observed yet.
type HostState struct {
	Uplinks opt.Dual[Uplink]
	Exits   set.Names // every interface that leads off the node, the uplinks among them

	// Underlay is the prefixes that the exits are connected to. Where hosts are numbered
	// from the overlay's own range the guard must not take them for pods.
	Underlay set.Prefixes
}

// Observer observes the host for a node. Make it with NewObserver. Its methods are safe
// for concurrent use, and act in the network namespace of the calling thread.
type Observer struct {
	tunnel string
	choice config.UplinkChoice

	mu      sync.Mutex            // guards the fields below
	fresh   opt.Option[Inventory] // the last inventory, until a change was made or a part has used it
	current overlay               // of the last Observe
}

// overlay is the prefixes of the overlay and this node's part of them. The zero overlay is
// not known yet.
type overlay struct{ networks, subnets opt.Dual[netip.Prefix] }

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
	v, err := readInventory(o.tunnel, o.choice.CanReach)
	if err != nil {
		return HostState{}, err
	}
	o.mu.Lock()
	o.fresh = opt.Some(v)
	o.current = overlay{
		networks: opt.Map(in.Network.Ranges, func(_ opt.Family, r config.Range) netip.Prefix { return r.Network }),
		subnets:  in.Lease.Or(subnet.Lease{}).Subnets,
	}
	o.mu.Unlock()
	return hostState(o.choice, v)
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
	return readInventory(o.tunnel, opt.None[netip.Addr]())
}

// hostState derives the state of the host from the kernel's lists. It is pure.
func hostState(c config.UplinkChoice, v Inventory) (HostState, error) {
	up, err := Uplinks(c, v)
	var names []string
	for _, u := range up.All() {
		names = append(names, u.Name)
	}
	for _, r := range v.Routes {
		names = append(names, r.Link)
	}
	s := HostState{Uplinks: up, Exits: set.NewNames(names...)}
	var connected []netip.Prefix
	for name := range s.Exits.All() {
		l, _ := v.link(name)
		for _, a := range l.Addresses {
			connected = append(connected, netip.PrefixFrom(a.Addr, a.Bits))
		}
	}
	s.Underlay = set.NewPrefixes(connected...)
	return s, err
}
