package network

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"

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
