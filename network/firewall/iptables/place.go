// Package iptables makes one family's iptables hold given rule lists: it finds the tools
// and lists the rules through go-iptables, compares, and applies what differs with one
// iptables-restore. It knows nothing of why the rules are as they are.
//
// Everything of ours hangs on one jump per place:
//
//	POSTROUTING ── jump ──► LODEN-POSTRTG ── jump ──► LODEN-MASQ-3f9a1c0b77
//	(everybody's)           (never changes)            (named after its rules)
//
// A change fills a new chain, moves the inner jump to it and deletes the old one in one
// commit; the outer jump keeps its place beside other programs' jumps.
package iptables

import "github.com/loden-net/loden/network/firewall/rule"

// place is where a list of rules lives in iptables.
type place struct {
	table  string
	base   string // the kernel's own chain
	hook   string // our constant chain, called from base
	prefix string // of the chains named after their rules
	first  bool   // the jump goes before everybody else's, not after
}

// hookPrefix starts every chain name of ours.
const hookPrefix = "LODEN-"

func placeOf(p rule.Place) place {
	switch p {
	case rule.GuardIn:
		return place{table: "raw", base: "PREROUTING", hook: "LODEN-GUARD-IN", prefix: "LODEN-IN-", first: true}
	case rule.GuardOut:
		// No table is asked after source translation: mangle comes just before it.
		return place{table: "mangle", base: "POSTROUTING", hook: "LODEN-GUARD-OUT", prefix: "LODEN-OUT-", first: true}
	case rule.Forward:
		return place{table: "filter", base: "FORWARD", hook: "LODEN-FORWARD", prefix: "LODEN-FWD-"}
	}
	return place{table: "nat", base: "POSTROUTING", hook: "LODEN-POSTRTG", prefix: "LODEN-MASQ-"}
}
