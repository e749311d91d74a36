package iptables

import (
	"slices"

	"github.com/loden-net/loden/config/opt"
	"github.com/loden-net/loden/network/firewall/rule"
)

// A rule that is present may be without effect: on Oracle's images and on RHEL the chain FORWARD ends
// with a REJECT of every packet, and a jump behind it is never reached. obstacle finds such a rule.

// deepest bounds the walk through the chains of other programs.
const deepest = 8

// obstacle returns the index of the first rule of the slot's base chain that decides every packet of the
// pods against or past the rules of the slot, and false where there is none.
func (s slot) obstacle(chains table, want opt.Option[rule.List]) (index int, ok bool) {
	list, present := want.Get()
	if !present {
		return 0, false
	}
	w := walk{slot: s, chains: chains, scope: list.Scope}
	for i, l := range chains[s.base] {
		if l.target == s.anchor {
			return 0, false
		}
		if w.decides(l, 0) {
			return i, true
		}
	}
	return 0, false
}

// walk follows the packets of the pods through the chains of other programs.
type walk struct {
	slot   slot
	chains table
	scope  rule.Scope
}

// ends reports whether a target takes the packet away from the slot's rules with a result that differs
// from theirs.
func (w walk) ends(target string) bool {
	switch w.slot.place {
	case rule.Forward: // an ACCEPT of another program is as good as ours
		return target == "DROP" || target == "REJECT"
	case rule.Postrouting: // another program's MASQUERADE translates as ours does
		return target == "ACCEPT"
	}
	return target == "ACCEPT" // past the guard; a packet that is dropped does not leak
}

// decides reports whether a rule ends the way of every packet of the pods in one direction.
func (w walk) decides(l line, depth int) bool {
	if l.narrow || !w.matches(l.rule.Src) || !w.matches(l.rule.Dst) || l.rule.Src != (rule.Net{}) && l.rule.Dst != (rule.Net{}) {
		return false
	}
	if w.ends(l.target) {
		return true
	}
	rules, isChain := w.chains[l.target]
	if !isChain || depth == deepest {
		return false
	}
	for _, inner := range rules {
		if w.decides(inner, depth+1) {
			return true
		}
		// A rule that lets every packet out of the chain ends the walk.
		if !inner.narrow && w.matches(inner.rule.Src) && w.matches(inner.rule.Dst) && slices.Contains([]string{"ACCEPT", "RETURN", "DROP", "REJECT"}, inner.target) {
			return false
		}
	}
	return false
}

// matches reports whether an address match holds for every address of the overlay.
func (w walk) matches(n rule.Net) bool {
	network := w.scope.Network
	switch {
	case !n.Prefix.IsValid():
		return true
	case n.Not:
		return !n.Prefix.Overlaps(network)
	}
	return n.Prefix.Bits() <= network.Bits() && n.Prefix.Overlaps(network)
}
