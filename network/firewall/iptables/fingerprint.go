package iptables

import (
	"slices"
	"strings"

	"github.com/loden-net/loden/network/firewall/rule"
)

// Fingerprint describes the rules of a family and variant of iptables.
type Fingerprint struct {
	Text    string // differs whenever rules that concern the daemon do, counters apart
	Ours    bool   // the kernel holds rules of this daemon
	Flannel bool   // the kernel holds rules of flannel
	Used    int    // grows with the number of rules of every program; zero when there are none
	Unknown bool   // there are rules, but no tool that lists them all: every comparison has to list

	owner  rule.Owner
	traces map[string]bool // tables with rules of a Loden daemon or of flannel in them
}

func newFingerprint(o rule.Owner) Fingerprint {
	return Fingerprint{owner: o, traces: map[string]bool{}}
}

// trace notes whose a chain name or a rule is, in the form of the kernel or of iptables-save.
func (p *Fingerprint) trace(table, text string) {
	own, flannel := ours(p.owner, text), flannels(text)
	p.Ours = p.Ours || own
	p.Flannel = p.Flannel || flannel
	if own || flannel || daemonChain.MatchString(text) {
		p.traces[table] = true
	}
}

// Places returns the places to list before a change: the places whose tables hold rules of a Loden
// daemon or of flannel, and those where the desired rules will be. At Postrouting there may be unmarked
// rules of an old flannel as well.
func (p Fingerprint) Places(want map[rule.Place]rule.List) []rule.Place {
	var places []rule.Place
	for _, at := range rule.Places() {
		_, desired := want[at]
		if at == rule.Postrouting || desired || p.Unknown || p.traces[slotOf(p.owner, at).table] {
			places = append(places, at)
		}
	}
	return places
}

// flannelPrefix starts the names of flannel's chains, flannelComment its comments.
const (
	flannelPrefix  = "FLANNEL-"
	flannelComment = "flanneld "
)

// ours reports whether a chain name or a rule is this daemon's.
func ours(o rule.Owner, text string) bool { return strings.Contains(text, o.ChainPrefix()) }

// flannels reports whether a chain name or a rule is flannel's.
func flannels(text string) bool {
	return strings.Contains(text, flannelPrefix) || strings.Contains(text, flannelComment)
}

// ownTable reports whether Loden has rules in a table.
func ownTable(name string) bool {
	all := rule.Places()
	return slices.ContainsFunc(all[:], func(p rule.Place) bool { return slotOf(rule.Owner{}, p).table == name })
}

// Concerns reports whether a change of a chain of iptables-nft may concern a daemon; an empty chain
// stands for the whole table.
func Concerns(o rule.Owner, table, chain string) bool {
	if !ownTable(table) {
		return false
	}
	all := rule.Places()
	base := slices.ContainsFunc(all[:], func(p rule.Place) bool {
		s := slotOf(o, p)
		return s.table == table && s.base == chain
	})
	return base || chain == "" || ours(o, chain) || flannels(chain)
}
