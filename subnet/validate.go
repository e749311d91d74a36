package subnet

import (
	"fmt"
	"net/netip"
	"slices"

	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"github.com/loden-net/loden/config"
	"github.com/loden-net/loden/config/opt"
)

// Identity is this node, as far as other nodes' leases may not contradict it.
type Identity struct {
	Node    string
	Key     wgtypes.Key
	Subnets opt.Dual[netip.Prefix] // of its own lease
}

// Validate returns the leases of other nodes that may become peers, oldest first, and the
// faults of the rest. A writer of etcd can write any text, so leases are judged as data from
// outside:
//
//   - a subnet has the network's length, lies in the network, and is a subnet of nobody
//     older and not ours;
//   - a public key is not ours and is nobody's older;
//   - an endpoint is an address that a packet can be sent to, outside the overlay.
//
// A half of a family that the network has switched off is dropped in silence. A lease with
// a wrong subnet is refused whole; a wrong endpoint is dropped, and the lease with it
// when it was the only endpoint. Claims are believed by age, so the order of leases does not
// matter.
func Validate(n config.Network, self Identity, leases []Lease) (peers []Lease, problems []Problem) {
	j := judge{
		network: n, self: self,
		subnets: map[netip.Prefix]Lease{}, keys: map[wgtypes.Key]Lease{},
	}
	for _, l := range slices.SortedFunc(slices.Values(leases), Lease.Compare) {
		if l.Waiting() {
			continue
		}
		if l.Node == self.Node && l.Key == self.Key {
			problems = append(problems, j.ownLost(l)...)
			continue
		}
		l, dropped := j.endpoints(l)
		problems = append(problems, dropped...)
		if reason := j.refuse(l); reason != "" {
			problems = append(problems, Problem{Object: l.Title(), Reason: reason})
			continue
		}
		l.Subnets = Inside(n, l.Subnets)
		for _, p := range l.Subnets.All() {
			j.subnets[p] = l
		}
		j.keys[l.Key] = l
		peers = append(peers, l)
	}
	return peers, problems
}

// judge holds the leases that were believed so far.
type judge struct {
	network config.Network
	self    Identity
	subnets map[netip.Prefix]Lease // all of the same length per family, so overlap is equality
	keys    map[wgtypes.Key]Lease
}

// refuse says why l is no peer, or "".
func (j judge) refuse(l Lease) string {
	switch older, taken := j.keys[l.Key]; {
	case l.Key == wgtypes.Key{}:
		return "lease has no public key"
	case l.Key == j.self.Key:
		return "lease has our own public key"
	case l.Node != "" && l.Node == j.self.Node:
		return "lease has our own node name and another key"
	case taken:
		return "public key is that of the older lease " + older.Title()
	case l.Endpoints.Len() == 0:
		return "lease has no usable endpoint"
	}
	known := 0
	for f, p := range l.Subnets.All() {
		r, ok := j.network.Ranges.Of(f).Get()
		if !ok {
			continue
		}
		known++
		if reason := j.refuseSubnet(r, f, p); reason != "" {
			return reason
		}
	}
	if known == 0 {
		return "lease has no subnet of a family that the network has"
	}
	return ""
}

// refuseSubnet says why p is no other node's subnet of the range, or "".
func (j judge) refuseSubnet(r config.Range, f opt.Family, p netip.Prefix) string {
	if p.Bits() != r.SubnetLen {
		return fmt.Sprintf("subnet %s is not a /%d", p, r.SubnetLen)
	}
	if !r.Network.Contains(p.Addr()) || p != p.Masked() || p.Addr().Is4In6() {
		return fmt.Sprintf("subnet %s is not one of the network %s", p, r.Network)
	}
	if j.self.Subnets.Of(f) == opt.Some(p) {
		return fmt.Sprintf("subnet %s is ours", p)
	}
	if older, taken := j.subnets[p]; taken {
		return fmt.Sprintf("subnet %s is held by the older lease %s", p, older.Title())
	}
	return ""
}

// ownLost reports which subnets of our own lease are in an older claim of another node: every other node
// believes the older claim.
func (j judge) ownLost(own Lease) (problems []Problem) {
	for _, p := range own.Subnets.All() {
		if older, taken := j.subnets[p]; taken {
			problems = append(problems, Problem{Object: own.Title(),
				Reason: fmt.Sprintf("our subnet %s is held by the older lease %s", p, older.Title())})
		}
	}
	return problems
}

// Inside leaves out the families that the network has switched off.
func Inside(n config.Network, subnets opt.Dual[netip.Prefix]) opt.Dual[netip.Prefix] {
	for f := range subnets.All() {
		if !n.Ranges.Of(f).Present() {
			subnets = subnets.Without(f)
		}
	}
	return subnets
}

// endpoints returns l with the endpoints that make sense. flannel leaves out a port that
// is the network's.
func (j judge) endpoints(l Lease) (Lease, []Problem) {
	var problems []Problem
	for f, e := range l.Endpoints.All() {
		if e.Port() == 0 && l.Node == "" {
			e = netip.AddrPortFrom(e.Addr(), j.network.Backend.ListenPort)
			l.Endpoints = l.Endpoints.With(f, e)
		}
		if reason := j.refuseEndpoint(e); reason != "" {
			problems = append(problems, Problem{Object: l.Title(), Reason: fmt.Sprintf("endpoint %s %s", e, reason)})
			l.Endpoints = l.Endpoints.Without(f)
		}
	}
	return l, problems
}

// refuseEndpoint says why no packet should go to e, or "".
func (j judge) refuseEndpoint(e netip.AddrPort) string {
	a := e.Addr()
	switch {
	case e.Port() == 0:
		return "has no port"
	case a.IsUnspecified(), a.IsLoopback(), a.IsMulticast(), a.Is4In6(), a.Is6() && a.IsLinkLocalUnicast(),
		a == netip.AddrFrom4([4]byte{255, 255, 255, 255}):
		return "is not an address to send to"
	}
	for _, r := range j.network.Ranges.All() {
		if r.Network.Contains(a) {
			return "lies in the overlay itself"
		}
	}
	return ""
}
