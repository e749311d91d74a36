package iptables

import (
	"slices"
	"strings"

	"github.com/loden-net/loden/config/opt"
	"github.com/loden-net/loden/network/firewall/rule"
)

// Snapshot is the listed content of iptables in a family.
type Snapshot struct {
	Owner    rule.Owner // the daemon whose rules are compared
	TakeOver bool       // rules of flannel, and of another Loden for the same network, are to go

	tables map[string]table
}

// Holding is the result of a comparison at a place.
type Holding struct {
	Scope     opt.Option[rule.Scope] // of the rules in the kernel, where it can be read
	Ours      bool                   // the kernel holds rules of this daemon
	Flannels  bool                   // the kernel holds rules of flannel, which are to go
	InSync    bool                   // the kernel holds exactly the desired rules, and they are reached
	Unreached bool                   // a rule before them decides every packet
}

// view is a place of a snapshot, sorted by the edits that it needs.
type view struct {
	slot
	chains    table
	jumps     []line   // from the base chain to the anchor
	stale     []string // chains of this daemon that are not desired
	replaced  []line   // jumps to the anchors of daemons that this daemon replaces
	same      bool     // every desired chain holds exactly its rules
	unreached bool     // the jump stands behind a rule that decides every packet
	flannel   flannel
}

// view sorts a place of the snapshot against the desired list.
func (s Snapshot) view(p rule.Place, want opt.Option[rule.List]) view {
	at := slotOf(s.Owner, p)
	v := view{slot: at, chains: s.tables[at.table], same: true}
	for _, l := range v.chains[at.base] {
		if l.target == at.anchor {
			v.jumps = append(v.jumps, l)
		}
	}
	desired := map[string]bool{}
	if list, ok := want.Get(); ok {
		desired[at.anchor] = true
		chains := at.chainsOf(list)
		for _, c := range chains {
			desired[c.Name] = true
			have, ok := v.chains[c.Name]
			v.same = v.same && ok && slices.EqualFunc(have, c.Rules, sameRule)
		}
		v.same = v.same && sameAnchor(v.chains[at.anchor], list, chains[len(chains)-1].Name)
		_, obstructed := at.obstacle(v.chains, want)
		v.unreached = obstructed && len(v.jumps) > 0
	}
	for name := range v.chains {
		if !desired[name] && (name == at.anchor || strings.HasPrefix(name, at.prefix)) {
			v.stale = append(v.stale, name)
		}
	}
	if s.TakeOver {
		v.replaceOthers(want)
		v.flannel = flannelAt(at, v.chains, want)
	}
	slices.Sort(v.stale)
	return v
}

// replaceOthers marks the rules of another daemon for the same network as stale: of this daemon under an
// earlier interface name, or of a version that gave every interface's rules the same names. Daemons of
// other networks are left alone.
func (v *view) replaceOthers(want opt.Option[rule.List]) {
	list, ok := want.Get()
	if !ok {
		return
	}
	for _, other := range v.otherAnchors(v.chains) {
		scope, ok := scopeAt(v.place, v.chains[other.anchor]).Get()
		if !ok || !scope.Network.Overlaps(list.Scope.Network) {
			continue
		}
		for _, l := range v.chains[v.base] {
			if l.target == other.anchor {
				v.replaced = append(v.replaced, l)
			}
		}
		for name := range v.chains {
			if name == other.anchor || strings.HasPrefix(name, other.prefix) {
				v.stale = append(v.stale, name)
			}
		}
	}
}

// sameRule compares a listed rule with a desired rule.
func sameRule(l line, r rule.Rule) bool {
	if r.Verdict == rule.Warn {
		r.Verdict = rule.Return // the rule's own counter is the warning
	}
	return l.known && l.rule == r
}

// sameAnchor reports whether an anchor holds just the jump to the entry of a list.
func sameAnchor(have []line, list rule.List, entry string) bool {
	return len(have) == 1 && have[0].target == entry && have[0].comment == list.Title() && !have[0].narrow &&
		have[0].rule.Src == rule.Net{} && have[0].rule.Dst == rule.Net{}
}

// scopeAt reads the scope from the rules of an anchor.
func scopeAt(p rule.Place, anchor []line) opt.Option[rule.Scope] {
	scope := opt.None[rule.Scope]()
	for _, l := range anchor {
		if s := rule.ParseTitle(p, l.comment); s.Present() {
			scope = s
		}
	}
	return scope
}

// Compare compares the rules of a place in the kernel with the desired list.
func (s Snapshot) Compare(p rule.Place, want opt.Option[rule.List]) Holding {
	v := s.view(p, want)
	h := Holding{
		Scope:     scopeAt(p, v.chains[v.anchor]),
		Ours:      len(v.jumps) > 0 || len(v.stale) > 0,
		Flannels:  !v.flannel.empty(),
		InSync:    v.same && len(v.stale) == 0 && v.flannel.empty() && !v.unreached,
		Unreached: v.unreached,
	}
	jumps := 0
	if want.Present() {
		jumps = 1
	}
	h.InSync = h.InSync && len(v.jumps) == jumps
	for name := range v.chains {
		h.Ours = h.Ours || name == v.anchor || strings.HasPrefix(name, v.prefix)
	}
	return h
}

// Refused sums the counters of the rules that refuse packets at a place.
func (s Snapshot) Refused(p rule.Place) uint64 {
	at := slotOf(s.Owner, p)
	var n uint64
	for name, lines := range s.tables[at.table] {
		if !strings.HasPrefix(name, at.prefix) {
			continue
		}
		for _, l := range lines {
			if rule.Refuses(l.comment) {
				n += l.packets
			}
		}
	}
	return n
}
