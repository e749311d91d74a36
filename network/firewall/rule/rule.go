// Package rule owns the firewall rules as data: masquerade, forwarding and guard, made by
// pure functions from a Scope. It must not know iptables, nftables or the kernel; both drivers
// render the same lists.
package rule

import (
	"fmt"
	"net/netip"

	"github.com/loden-net/loden/config/opt"
)

// Scope holds the prefixes that the rules of a family are made from. It is comparable with ==; a zero
// prefix in it makes it invalid.
type Scope struct {
	Network netip.Prefix // the whole overlay of the family
	Subnet  netip.Prefix // this node's part of it
}

// Family returns the family of a valid scope.
func (s Scope) Family() opt.Family { return opt.FamilyOf(s.Network.Addr()) }

// Valid reports whether the scope is complete: two prefixes of one family, the subnet
// inside the network.
func (s Scope) Valid() bool {
	return s.Network.IsValid() && s.Subnet.IsValid() &&
		s.Network == s.Network.Masked() && s.Subnet == s.Subnet.Masked() &&
		s.Network.Addr().Is4() == s.Subnet.Addr().Is4() &&
		s.Network.Bits() <= s.Subnet.Bits() && s.Network.Contains(s.Subnet.Addr())
}

// String returns "network subnet", which ParseScope reads.
func (s Scope) String() string { return fmt.Sprintf("%s %s", s.Network, s.Subnet) }

// Place is where the kernel asks a list of rules.
type Place uint8

// The places, in the order a packet meets them.
const (
	GuardIn     Place = iota // arriving packets, before connection tracking
	Forward                  // packets that are routed through the node
	Postrouting              // source address translation, first packet of a connection
	GuardOut                 // leaving packets
)

// Places lists them all.
func Places() [4]Place { return [4]Place{GuardIn, Forward, Postrouting, GuardOut} }

// String returns a short name.
func (p Place) String() string {
	switch p {
	case GuardIn:
		return "guard-in"
	case Forward:
		return "forward"
	case Postrouting:
		return "postrouting"
	}
	return "guard-out"
}

// Verdict is the action of a rule on a packet that matches.
type Verdict uint8

// The verdicts. The zero value returns to where the chain was called from.
const (
	Return Verdict = iota
	Accept
	Masquerade
	MasqueradeRandom // with fully random source ports
	Drop             // counted as refused
	Warn             // counted as refused, and returned
	Goto             // goes on in another chain of the same list
)

// Mark is a packet mark: the packet's mark, limited to Mask, equals Value. The zero value
// renders as no match.
type Mark struct{ Value, Mask uint32 }

// Net matches an address: inside Prefix, or outside it when Not. The zero value matches
// every address.
type Net struct {
	Prefix netip.Prefix
	Not    bool
}

// In matches addresses inside p.
func In(p netip.Prefix) Net { return Net{Prefix: p} }

// NotIn matches addresses outside p.
func NotIn(p netip.Prefix) Net { return Net{Prefix: p, Not: true} }

// Rule is one rule. It is comparable with ==; a zero match field matches every packet.
type Rule struct {
	InIface, OutIface string
	Src, Dst          Net
	Mark              Mark
	TCP               uint16 // destination port
	Local             bool   // the destination is an address of the node

	// Translated matches a packet whose source is, or is about to be, another address on the
	// wire. A driver that asks GuardOut after source translation leaves the rule out.
	Translated bool

	Verdict Verdict
	Chain   string // for Goto: Name of a chain of the same list
	Comment string // for a reader of the kernel's own listing
}

// Chain is an ordered list of rules. Name is empty for the entry of a list.
type Chain struct {
	Name  string
	Rules []Rule
}

// List is the rules of a place, and the scope that they were made from. The first chain is
// the entry.
type List struct {
	Place  Place
	Scope  Scope
	Chains []Chain
}
