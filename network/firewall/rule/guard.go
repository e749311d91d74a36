package rule

import (
	"net/netip"

	"github.com/loden-net/loden/config/opt"
	"github.com/loden-net/loden/config/set"
)

// Guarding holds the inputs of the guard of a family. docs/firewall.md has the
// reasoning; in short there are three kinds of addresses:
//
//	ours     in Scope.Subnet: lives behind pod interfaces of this node
//	theirs   elsewhere in Scope.Network: is reached through the tunnel alone
//	outside  not in Scope.Network, or in Except
type Guarding struct {
	Scope   Scope
	Tunnel  string       // the interface overlay packets may use
	Uplinks set.Names    // interfaces that lead off the node: never pod interfaces
	Except  set.Prefixes // underlay prefixes that lie inside the network
	Exclude set.Prefixes // destinations that see pod addresses (masquerade exclusions)

	// Ports are TCP ports of nodes and of hosts outside that no pod may connect to: the ports of an etcd
	// of Loden's own, which a pod could otherwise reach at any node. Ports of pods are not concerned.
	Ports set.Ports

	// Routed says that the family is not masqueraded: pods speak with the outside by
	// their own addresses, and this is no overlay traffic.
	Routed bool

	Enforce bool // drop refused packets; otherwise only count them
}

// refuse returns the verdict for overlay packets in the wrong place.
func (g Guarding) refuse() Verdict {
	if g.Enforce {
		return Drop
	}
	return Warn
}

// GuardLists returns the guard for arriving and for leaving packets.
func GuardLists(g Guarding) [2]List {
	in := List{Place: GuardIn, Scope: g.Scope, Chains: g.arriving()}
	out := List{Place: GuardOut, Scope: g.Scope, Chains: g.leaving()}
	return [2]List{in, out}
}

// arriving refuses packets with overlay addresses that come from elsewhere than the tunnel
// and the pods of this node. It is asked before any translation: a packet that is addressed to the
// node and translated to a pod later (a service, a host port) does not carry an overlay
// address yet.
func (g Guarding) arriving() []Chain {
	const outside = "outside"
	network, subnet := g.Scope.Network, g.Scope.Subnet
	rules := g.closed(Rule{InIface: g.Tunnel, Src: In(network), Local: true})
	rules = append(rules,
		Rule{InIface: g.Tunnel, Comment: "loden: through the tunnel"},
		Rule{InIface: "lo", Comment: "loden: the node to itself"},
	)
	for p := range g.except() {
		rules = append(rules, Rule{Src: In(p), Verdict: Goto, Chain: outside, Comment: "loden: from the underlay"})
	}
	rules = append(rules, g.closed(Rule{Src: In(network), Local: true})...)
	rules = append(rules, g.closed(Rule{Src: In(network), Dst: NotIn(network)})...)
	for p := range g.except() {
		rules = append(rules, g.closed(Rule{Src: In(network), Dst: In(p)})...)
	}
	for name := range g.Uplinks.All() {
		rules = append(rules, Rule{InIface: name, Src: In(subnet), Verdict: g.refuse(), Comment: "loden refused: own pod from an uplink"})
	}
	rules = append(rules, Rule{Src: In(subnet), Comment: "loden: own pod"})
	if g.Routed {
		for p := range g.except() {
			rules = append(rules, Rule{Src: In(network), Dst: In(p), Comment: "loden: pod to underlay"})
		}
		rules = append(rules, Rule{Src: In(network), Dst: In(network), Verdict: g.refuse(), Comment: "loden refused: pod to pod in clear"})
		rules = append(rules, Rule{Src: In(network), Comment: "loden: pod to outside"})
	} else {
		for p := range g.exclude() {
			rules = append(rules, Rule{Src: In(network), Dst: In(p), Comment: "loden: excluded destination"})
		}
		rules = append(rules, Rule{Src: In(network), Verdict: g.refuse(), Comment: "loden refused: pod of another node in clear"})
		rules = append(rules, Rule{Verdict: Goto, Chain: outside, Comment: "loden: from outside"})
	}
	return []Chain{{Rules: rules}, {Name: outside, Rules: g.fromOutside()}}
}

// closed refuses the packets of r to each of the ports. A service's address is seen before its
// translation, so the service has to have the port as well.
func (g Guarding) closed(r Rule) []Rule {
	var rules []Rule
	for port := range g.Ports.All() {
		r.TCP, r.Verdict, r.Comment = port, g.refuse(), "loden refused: pod to a closed port"
		rules = append(rules, r)
	}
	return rules
}

// fromOutside judges packets whose source is outside: where pods are masqueraded no host
// outside has reason to know their addresses.
func (g Guarding) fromOutside() []Rule {
	if g.Routed {
		return []Rule{{Comment: "loden: pods are reached by their own addresses"}}
	}
	var rules []Rule
	for p := range g.except() {
		rules = append(rules, Rule{Dst: In(p), Comment: "loden: to the underlay"})
	}
	rules = append(rules, Rule{Dst: NotIn(g.Scope.Network), Comment: "loden: not to a pod"})
	for p := range g.exclude() {
		rules = append(rules, Rule{Src: In(p), Comment: "loden: answer of an excluded destination"})
	}
	if g.Scope.Family() == opt.V6 {
		rules = append(rules, g.onPodLinks(Rule{Src: In(linkLocal()), Comment: "loden: neighbour on a pod link"})...)
	}
	return append(rules, Rule{Verdict: g.refuse(), Comment: "loden refused: outside to pod in clear"})
}

// leaving refuses packets with overlay addresses that go elsewhere than into the tunnel
// and to the pods of this node. It is asked last, after translation where the driver
// can: then the source on the wire counts.
func (g Guarding) leaving() []Chain {
	const outside = "outside"
	network, subnet := g.Scope.Network, g.Scope.Subnet
	rules := []Rule{
		{OutIface: g.Tunnel, Comment: "loden: through the tunnel"},
		{OutIface: "lo", Comment: "loden: the node to itself"},
	}
	for p := range g.except() {
		rules = append(rules, Rule{Dst: In(p), Verdict: Goto, Chain: outside, Comment: "loden: to the underlay"})
	}
	for name := range g.Uplinks.All() {
		rules = append(rules, Rule{OutIface: name, Dst: In(subnet), Verdict: g.refuse(), Comment: "loden refused: own pod by an uplink"})
	}
	rules = append(rules,
		Rule{Dst: In(subnet), Comment: "loden: own pod"},
		Rule{Dst: In(network), Verdict: g.refuse(), Comment: "loden refused: pod of another node in clear"},
		Rule{Verdict: Goto, Chain: outside, Comment: "loden: to outside"},
	)
	return []Chain{{Rules: rules}, {Name: outside, Rules: g.toOutside()}}
}

// toOutside judges packets whose destination is outside: where pods are masqueraded their
// addresses do not leave. Packets that connection tracking calls invalid are never
// translated; they leak from a node whose rules look right.
func (g Guarding) toOutside() []Rule {
	if g.Routed {
		return []Rule{{Comment: "loden: pods speak by their own addresses"}}
	}
	var rules []Rule
	for p := range g.except() {
		rules = append(rules, Rule{Src: In(p), Comment: "loden: from the underlay"})
	}
	rules = append(rules, Rule{Src: NotIn(g.Scope.Network), Comment: "loden: not from a pod"})
	for p := range g.exclude() {
		rules = append(rules, Rule{Dst: In(p), Comment: "loden: excluded destination"})
	}
	for _, p := range linkScope(g.Scope.Family()) {
		rules = append(rules, g.onPodLinks(Rule{Dst: In(p), Comment: "loden: neighbour on a pod link"})...)
	}
	return append(rules,
		Rule{Translated: true, Comment: "loden: its source is translated"},
		Rule{Verdict: g.refuse(), Comment: "loden refused: pod address to outside in clear"},
	)
}

// onPodLinks allows the packets of r except on uplinks. Neighbour discovery between a node
// and its pods uses an overlay address at one end and a link-scope address at the other.
func (g Guarding) onPodLinks(r Rule) []Rule {
	var rules []Rule
	for name := range g.Uplinks.All() {
		u := r
		u.Verdict, u.Comment = g.refuse(), "loden refused: pod address on an uplink"
		if r.Src != (Net{}) {
			u.InIface = name
		} else {
			u.OutIface = name
		}
		rules = append(rules, u)
	}
	return append(rules, r)
}

func (g Guarding) except() func(func(netip.Prefix) bool) { return g.Except.Of(g.Scope.Family()) }

func (g Guarding) exclude() func(func(netip.Prefix) bool) { return g.Exclude.Of(g.Scope.Family()) }

// linkLocal returns the IPv6 range whose addresses are valid on a single link.
func linkLocal() netip.Prefix { return netip.MustParsePrefix("fe80::/10") }

// linkScope returns the destinations that are never routed off a link.
func linkScope(f opt.Family) []netip.Prefix {
	if f == opt.V6 {
		return []netip.Prefix{Multicast(f), linkLocal()}
	}
	return []netip.Prefix{Multicast(f), netip.MustParsePrefix("255.255.255.255/32")}
}
