package network

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/loden-net/loden/config/diff"
	"github.com/loden-net/loden/config/opt"
	"github.com/loden-net/loden/config/prefix"
)

// podBridge is the name that the bridge of the pods has unless the CNI configuration gives
// it another.
const podBridge = "cni0"

// gatewayChanges returns the changes that give the bridge of this node's pods its gateway
// addresses back. The CNI plugin made bridge and addresses with the first pod; afterwards an
// IPv6 address is lost when the bridge goes down or IPv6 is switched off for a moment, and
// the pods that run then have no IPv6 for good. A bridge that does not exist is not made,
// and a bridge with an address of another network in the family is left as it is.
func gatewayChanges(v Inventory, want opt.Dual[netip.Prefix]) []diff.Change {
	var out []diff.Change
	for _, l := range v.Links {
		if !v.holdsPods(l, want) {
			continue
		}
		for f, gateway := range want.All() {
			if slices.ContainsFunc(l.Addresses, func(a LinkAddress) bool {
				return opt.FamilyOf(a.Addr) == f && !a.Addr.IsLinkLocalUnicast()
			}) {
				continue
			}
			out = append(out, diff.Change{Part: routesPart, Verb: "add", Object: fmt.Sprintf("gateway address %s to %s", gateway, l.Name),
				Run: func(context.Context) error { return addGateway(l.Name, gateway) }})
		}
	}
	return out
}

// attachTime is how long the ADD of a node's first pod may take from making the bridge to
// setting its addresses: 20 to 40 ms on an idle machine.
const attachTime = 2 * time.Second

// gatewayWatch keeps the daemon from setting gateway addresses while the CNI plugin makes the
// bridge. The bridge plugin fixes the bridge's hardware address together with the gateway
// address that it sets; where it finds the address, the hardware address stays that of a pod's
// link, and changes when that pod goes.
type gatewayWatch struct {
	again func(time.Duration) // asks for another pass

	mu    sync.Mutex           // guards since
	since map[string]time.Time // when an address was found missing first, by the change's object
}

// due returns the changes whose address has been missing for longer than an ADD takes. It asks
// for another pass for the other changes.
func (g *gatewayWatch) due(missing []diff.Change, now time.Time) []diff.Change {
	g.mu.Lock()
	defer g.mu.Unlock()
	since := map[string]time.Time{}
	var out []diff.Change
	for _, c := range missing {
		first, seen := g.since[c.Object]
		if !seen {
			first = now
			g.again(attachTime)
		}
		since[c.Object] = first
		if now.Sub(first) >= attachTime {
			out = append(out, c)
		}
	}
	g.since = since
	return out
}

// holdsPods reports whether a link is the bridge of this node's pods: it holds a gateway
// address, or is called cni0 and has ports.
func (v Inventory) holdsPods(l Link, want opt.Dual[netip.Prefix]) bool {
	if l.Kind != "bridge" || !l.Up {
		return false
	}
	holds := slices.ContainsFunc(l.Addresses, func(a LinkAddress) bool {
		p, ok := want.Of(opt.FamilyOf(a.Addr)).Get()
		return ok && p.Addr() == a.Addr
	})
	return holds || l.Name == podBridge && slices.ContainsFunc(v.Links, func(p Link) bool { return p.Bridge == l.Name })
}

// addGateway adds an address without duplicate address detection, which would keep pods
// waiting: the address belongs to this node by its lease.
func addGateway(link string, gateway netip.Prefix) error {
	l, err := netlink.LinkByName(link)
	if err == nil {
		a := &netlink.Addr{IPNet: prefix.IPNet(gateway)}
		if gateway.Addr().Is6() {
			a.Flags = unix.IFA_F_NODAD
		}
		err = netlink.AddrAdd(l, a)
	}
	switch {
	case errors.Is(err, unix.EEXIST):
		return nil
	case errors.Is(err, unix.EACCES):
		return fmt.Errorf("add gateway address %s to %s: %w: pods of this node have no IPv6 until `sysctl -w net.ipv6.conf.%s.disable_ipv6=0`", gateway, link, err, link)
	case err != nil:
		return fmt.Errorf("add gateway address %s to %s: %w", gateway, link, err)
	}
	return nil
}
