// Package iptables makes the rules of a family in iptables agree with given rule lists: it finds the
// tools, lists the rules through go-iptables, compares, and applies the difference with a single
// iptables-restore. It must not know the reason for a rule.
//
// All rules of a place hang on a jump in the kernel's own chain:
//
//	POSTROUTING ── jump ──► LODEN-POSTRTG ── jump ──► LODEN-MASQ-3f9a1c0b77
//	(of every program)      (anchor: never changes)    (named after its rules)
//
// A change fills a new chain, moves the anchor's jump to it and deletes the old chain in one commit; the
// jump to the anchor keeps its position among the jumps of other programs, unless a rule before it
// decides every packet.
package iptables

import (
	"regexp"

	"github.com/loden-net/loden/network/firewall/rule"
)

// slot is where the rules of a place live in iptables.
type slot struct {
	place  rule.Place
	owner  rule.Owner
	table  string
	base   string // the kernel's own chain
	anchor string // the constant chain of this daemon, which base jumps to
	prefix string // of the chains that are named after their rules
	first  bool   // a new jump goes before the jumps of other programs, not after them
}

// slotOf returns the slot of a place for a daemon.
func slotOf(o rule.Owner, p rule.Place) slot {
	s := slot{place: p, owner: o, first: true}
	prefix := o.ChainPrefix()
	switch p {
	case rule.GuardIn:
		s.table, s.base, s.anchor, s.prefix = "raw", "PREROUTING", prefix+"GUARD-IN", prefix+"IN-"
	case rule.GuardOut:
		// No table is asked after source translation: mangle comes just before it.
		s.table, s.base, s.anchor, s.prefix = "mangle", "POSTROUTING", prefix+"GUARD-OUT", prefix+"OUT-"
	case rule.Forward:
		// First, as kube-proxy's: on hosts of Oracle, RHEL and more distributions FORWARD ends with REJECT.
		s.table, s.base, s.anchor, s.prefix = "filter", "FORWARD", prefix+"FORWARD", prefix+"FWD-"
	default:
		s.table, s.base, s.anchor, s.prefix = "nat", "POSTROUTING", prefix+"POSTRTG", prefix+"MASQ-"
		s.first = false // after kube-proxy's, which marks the packets that it translates itself
	}
	return s
}

// digits is how many digits of a list's sum are in the name of its chain. The names of a daemon with
// another interface than the default are longer at their start, and a name has 28 characters at most.
func (s slot) digits() int {
	if s.owner.Default() {
		return rule.SumDigits
	}
	return 6
}

// chainsOf returns the chains of a list by their names in the kernel, the entry last.
func (s slot) chainsOf(list rule.List) []rule.Chain { return list.Named(s.prefix, s.digits()) }

// jumpComment is the comment of the jump from the base chain to the anchor.
func (s slot) jumpComment() string { return s.owner.Mark(s.place) }

// daemonChain matches the names of chains of every Loden daemon, also of another daemon on this host.
var daemonChain = regexp.MustCompile(`\b(LODEN|LDN[0-9a-f]{5})-[A-Z]`)

// otherAnchors returns the anchors of other daemons at the slot's place: by the names of the chains.
func (s slot) otherAnchors(chains table) []slot {
	var out []slot
	for name := range chains {
		prefix := daemonChain.FindString(name)
		if prefix == "" || len(name) <= len(prefix) {
			continue
		}
		prefix = prefix[:len(prefix)-1]
		if prefix == s.owner.ChainPrefix() {
			continue
		}
		other := slotOf(s.owner, s.place)
		other.anchor = prefix + s.anchor[len(s.owner.ChainPrefix()):]
		other.prefix = prefix + s.prefix[len(s.owner.ChainPrefix()):]
		if name == other.anchor {
			out = append(out, other)
		}
	}
	return out
}
