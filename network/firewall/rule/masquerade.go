package rule

import (
	"net/netip"

	"github.com/loden-net/loden/config/opt"
	"github.com/loden-net/loden/config/set"
)

// Masquerading holds the inputs of the masquerade rules of a family.
type Masquerading struct {
	Scope       Scope
	Exclude     set.Prefixes // destinations that see the pods' own addresses
	RandomFully bool         // fully random source ports, where the tools know them
	Mark        Mark         // packets that another program masquerades already: kube-proxy's
}

// KubeProxyMark is the mark of packets that kube-proxy masquerades itself
// (--iptables-masquerade-bit 14).
func KubeProxyMark() Mark { return Mark{Value: 0x4000, Mask: 0x4000} }

// Multicast returns the family's multicast range, which is never masqueraded.
func Multicast(f opt.Family) netip.Prefix {
	if f == opt.V6 {
		return netip.MustParsePrefix("ff00::/8")
	}
	return netip.MustParsePrefix("224.0.0.0/4")
}

// Postroute returns the masquerade rules in flannel's order, which is part of their
// meaning (flannel issues 1681, 1725).
func Postroute(m Masquerading) List {
	network, subnet := m.Scope.Network, m.Scope.Subnet
	masquerade := Masquerade
	if m.RandomFully {
		masquerade = MasqueradeRandom
	}
	var rules []Rule
	if m.Mark != (Mark{}) {
		// kube-proxy masquerades these itself; a second masquerade would hide its choice.
		rules = append(rules, Rule{Mark: m.Mark, Comment: "loden: masqueraded by kube-proxy"})
	}
	rules = append(rules,
		// Pod addresses are valid inside the overlay: there they stay.
		Rule{Src: In(subnet), Dst: In(network), Comment: "loden: own pod to overlay"},
		Rule{Src: In(network), Dst: In(subnet), Comment: "loden: overlay to own pod"},
		// A packet that reaches the owner of a pod directly is answered directly, so the pod may
		// see the asking host.
		Rule{Src: NotIn(network), Dst: In(subnet), Comment: "loden: outside to own pod"},
	)
	for p := range m.Exclude.Of(m.Scope.Family()) {
		rules = append(rules, Rule{Src: In(network), Dst: In(p), Comment: "loden: excluded destination"})
	}
	rules = append(rules,
		// No host outside has a route back to a pod.
		Rule{Src: In(network), Dst: NotIn(Multicast(m.Scope.Family())), Verdict: masquerade, Comment: "loden: overlay to outside"},
		// A packet of the node's own, sent into the overlay from an uplink address (after
		// a REDIRECT, or by a program bound to it), needs a source the far node answers
		// through the tunnel (flannel issues 318, 327).
		Rule{Src: NotIn(network), Dst: In(network), Verdict: masquerade, Comment: "loden: node to overlay"},
	)
	return List{Place: Postrouting, Scope: m.Scope, Chains: []Chain{{Rules: rules}}}
}

// ForwardAccept returns the rules that let pod traffic be routed on a host whose FORWARD
// policy is DROP, as docker sets it.
func ForwardAccept(s Scope) List {
	return List{Place: Forward, Scope: s, Chains: []Chain{{Rules: []Rule{
		{Src: In(s.Network), Verdict: Accept, Comment: "loden: from the overlay"},
		{Dst: In(s.Network), Verdict: Accept, Comment: "loden: to the overlay"},
	}}}}
}

// Private reports whether addresses of p are valid inside their own site only, so that
// pods need masquerade to be answered: IPv4 always (an IPv4 overlay is never routed to by
// accident), IPv6 when unique-local (RFC 4193).
func Private(p netip.Prefix) bool {
	return p.Addr().Is4() || p.Addr().IsPrivate()
}
