package network

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/loden-net/loden/config"
	"github.com/loden-net/loden/config/opt"
	"github.com/loden-net/loden/network/firewall"
	"github.com/loden-net/loden/subnet"
)

// The judgements here are pure functions that Plan, and through Preflight `check` and `put`,
// share: the same host and the same network give the same Problems everywhere.

// minIPv6MTU is the least MTU of a link for IPv6, in bytes (RFC 8200 section 5). The kernel
// takes IPv6 away from an interface with a smaller MTU.
const minIPv6MTU = 1280

// possibleScopes leaves out a family that cannot work on this host, with the reason as a
// Problem: each family stands alone.
func possibleScopes(in Inputs, scopes opt.Dual[firewall.Scope]) (opt.Dual[firewall.Scope], []subnet.Problem) {
	reason := ""
	switch mtu := MTU(in); {
	case !scopes.V6.Present():
	case in.NoIPv6:
		reason = "the kernel of this host runs without IPv6, so pods here have no IPv6: boot without ipv6.disable=1"
	case mtu < minIPv6MTU && mtu > 0:
		reason = fmt.Sprintf("the tunnel's MTU is %d bytes and IPv6 needs %d (RFC 8200), so pods here have no IPv6: raise the MTU of the uplink", mtu, minIPv6MTU)
	}
	if reason == "" {
		return scopes, nil
	}
	return scopes.Without(opt.V6), []subnet.Problem{{Object: in.Self.Name, Reason: reason}}
}

// shadowProblems returns a Problem for each foreign route that keeps this node from pods of
// the overlay: the route overlaps this node's own subnet or a peer's, or subnets that may
// become a peer's. A LAN of this host inside the overlay is a Problem only in the first two
// cases, since all nodes of the LAN avoid it.
func shadowProblems(in Inputs, own opt.Dual[netip.Prefix], peers []subnet.Lease) []subnet.Problem {
	var out []subnet.Problem
	for _, s := range in.Shadows {
		f := opt.FamilyOf(s.Dst.Addr())
		r, ok := in.Network.Ranges.Of(f).Get()
		if !ok {
			continue
		}
		var hit []string
		if p, ok := own.Of(f).Get(); ok && p.Overlaps(s.Dst) {
			hit = append(hit, fmt.Sprintf("this node's own subnet %s", p))
		}
		for _, l := range peers {
			if p, ok := l.Subnets.Of(f).Get(); ok && p.Overlaps(s.Dst) {
				hit = append(hit, fmt.Sprintf("subnet %s of node %q", p, l.Node))
			}
		}
		if len(hit) == 0 && !onLAN(in, s.Dst) && inRange(r, s.Dst) {
			hit = append(hit, "subnets that other nodes may get")
		}
		if len(hit) > 0 {
			out = append(out, subnet.Problem{Object: s.String(), Reason: fmt.Sprintf(
				"this route lies in the overlay %s and hides %s from this node: remove the route, or choose another network", r.Network, strings.Join(hit, ", "))})
		}
	}
	return out
}

// String returns the route as ip(8) prints it.
func (s Shadow) String() string {
	if s.Link == "" {
		return "route " + s.Dst.String()
	}
	return "route " + s.Dst.String() + " dev " + s.Link
}

// onLAN reports whether an uplink is connected to the prefix.
func onLAN(in Inputs, p netip.Prefix) bool {
	for lan := range in.Underlay.Of(opt.FamilyOf(p.Addr())) {
		if lan == p {
			return true
		}
	}
	return false
}

// inRange reports whether subnets inside the prefix can be handed out.
func inRange(r config.Range, p netip.Prefix) bool {
	last := r.SubnetMax
	return !last.Less(p.Addr()) && (p.Contains(r.SubnetMin) || !p.Addr().Less(r.SubnetMin))
}

// OutsideProblems returns a Problem for each address that the node must reach outside of the
// overlay and that in.Network would route into the tunnel: the addresses of its store, by
// name, the gateways of the host and the endpoints of the peers. A document with such a
// Problem is refused: once applied, the node would not hear the document that replaces it.
func OutsideProblems(in Inputs, store map[string]netip.Addr) []subnet.Problem {
	outside := maps.Clone(store)
	if outside == nil {
		outside = map[string]netip.Addr{}
	}
	maps.Copy(outside, in.Gateways)
	for l := range in.Leases.All() {
		for _, e := range l.Endpoints.All() {
			if l.Node != in.Self.Name {
				outside[fmt.Sprintf("endpoint %s of node %q", e, l.Node)] = e.Addr()
			}
		}
	}
	return RoutedIntoTunnel(in.Network, in.Direct(), outside)
}

// RoutedIntoTunnel returns a Problem for each address that this node must reach outside the
// overlay and that the network n would route into the tunnel: the node's store, gateway, DNS
// server or the endpoints of its peers. direct is the prefixes to which the host has more
// specific routes than the overlay's: its LANs. It is pure.
func RoutedIntoTunnel(n config.Network, direct []netip.Prefix, outside map[string]netip.Addr) []subnet.Problem {
	var out []subnet.Problem
	for _, name := range slices.Sorted(maps.Keys(outside)) {
		a := outside[name].Unmap()
		r, ok := n.Ranges.Of(opt.FamilyOf(a)).Get()
		if !ok || !r.Network.Contains(a) || coveredBy(direct, a, r.Network.Bits()) {
			continue
		}
		out = append(out, subnet.Problem{Object: name, Reason: fmt.Sprintf(
			"its address %s lies in the overlay %s, so it would be routed into the tunnel and lost: choose another network", a, r.Network)})
	}
	return out
}

// coveredBy reports whether a prefix longer than bits contains the address.
func coveredBy(direct []netip.Prefix, a netip.Addr, bits int) bool {
	for _, p := range direct {
		if p.Contains(a) && p.Bits() > bits {
			return true
		}
	}
	return false
}
