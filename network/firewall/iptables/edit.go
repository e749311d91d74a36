package iptables

import (
	"fmt"
	"slices"
	"strings"

	"github.com/loden-net/loden/config/opt"
	"github.com/loden-net/loden/network/firewall/rule"
)

// Snapshot is what iptables holds in one family, as far as it was listed.
type Snapshot struct {
	TakeOver bool // flannel's rules are to go

	tables map[string]table
}

// Holding is what was found at one place.
type Holding struct {
	Scope    opt.Option[rule.Scope] // what the rules were made from, where it can be read
	Ours     bool                   // anything of ours is there
	Flannels bool                   // flannel's rules are there, and to go
	InSync   bool                   // it is exactly as wished
}

// view is one place of a snapshot, sorted into what matters.
type view struct {
	place
	chains  table
	jumps   []line   // from the base chain to our hook chain
	stale   []string // our chains that are not wished
	right   bool     // every wished chain holds exactly its rules
	foreign foreign  // flannel's
}

// look sorts a place of the snapshot against a wish.
func (s Snapshot) look(p rule.Place, want opt.Option[rule.List]) view {
	at := placeOf(p)
	v := view{place: at, chains: s.tables[at.table], right: true}
	for _, l := range v.chains[at.base] {
		if l.target == at.hook {
			v.jumps = append(v.jumps, l)
		}
	}
	wished := map[string][]rule.Rule{}
	if list, ok := want.Get(); ok {
		for _, c := range at.chainsOf(list) {
			wished[c.Name] = c.Rules
		}
	}
	for name, rules := range wished {
		have, ok := v.chains[name]
		v.right = v.right && ok && same(have, rules)
	}
	for name := range v.chains {
		_, ok := wished[name]
		if !ok && (name == at.hook || strings.HasPrefix(name, at.prefix)) {
			v.stale = append(v.stale, name)
		}
	}
	slices.Sort(v.stale)
	if s.TakeOver {
		v.foreign = foreignAt(at, v.chains, want)
	}
	return v
}

// chainsOf returns every chain of a list by its kernel name, the hook chain last.
func (at place) chainsOf(list rule.List) []rule.Chain {
	chains := list.Named(at.prefix)
	entry := chains[len(chains)-1].Name
	jump := rule.Rule{Verdict: jump, Chain: entry, Why: list.Title()}
	return append(chains, rule.Chain{Name: at.hook, Rules: []rule.Rule{jump}})
}

// jump is the verdict of the one rule of a hook chain. It never leaves this package.
const jump = rule.Verdict(254)

// same compares what is listed with what is wished, rule by rule, in order.
func same(have []line, want []rule.Rule) bool {
	return slices.EqualFunc(have, want, func(l line, r rule.Rule) bool {
		if r.Verdict == jump {
			return l.target == r.Chain && l.comment == r.Why && l.rule.Src == rule.Net{} && l.rule.Dst == rule.Net{}
		}
		if r.Verdict == rule.Warn {
			r.Verdict = rule.Return
		}
		return l.known && l.rule == r
	})
}

// Compare says what is at a place, compared with a wish.
func (s Snapshot) Compare(p rule.Place, want opt.Option[rule.List]) Holding {
	v := s.look(p, want)
	h := Holding{
		Ours:     len(v.jumps) > 0 || len(v.stale) > 0,
		Flannels: !v.foreign.empty(),
		InSync:   v.right && len(v.stale) == 0 && v.foreign.empty(),
	}
	wantJumps := 0
	if want.Present() {
		wantJumps = 1
	}
	h.InSync = h.InSync && len(v.jumps) == wantJumps
	for _, l := range v.chains[v.hook] {
		if scope := rule.ParseTitle(p, l.comment); scope.Present() {
			h.Scope = scope
		}
	}
	for name := range v.chains {
		h.Ours = h.Ours || name == v.hook || strings.HasPrefix(name, v.prefix)
	}
	return h
}

// Edit returns the input for iptables-restore that makes a place as wished: one table,
// one commit. It is empty when nothing differs.
func (s Snapshot) Edit(p rule.Place, want opt.Option[rule.List]) string {
	if s.Compare(p, want).InSync {
		return ""
	}
	v := s.look(p, want)
	var b strings.Builder
	fmt.Fprintf(&b, "*%s\n", v.table)
	if list, ok := want.Get(); ok {
		v.write(&b, list)
	}
	v.foreign.remove(&b)
	v.trim(&b, want.Present())
	b.WriteString("COMMIT\n")
	return b.String()
}

// write declares every chain, which empties it, fills it and sees to the jump.
func (v view) write(b *strings.Builder, list rule.List) {
	chains := v.chainsOf(list)
	for _, c := range chains {
		fmt.Fprintf(b, ":%s - [0:0]\n", c.Name)
	}
	for _, c := range chains {
		for _, r := range c.Rules {
			if r.Verdict == jump {
				fmt.Fprintf(b, "-A %s -m comment --comment %q -j %s\n", c.Name, r.Why, r.Chain)
				continue
			}
			fmt.Fprintf(b, "-A %s %s\n", c.Name, render(r))
		}
	}
	if len(v.jumps) == 0 {
		how := "-A " + v.base
		if v.first {
			how = "-I " + v.base + " 1"
		}
		fmt.Fprintf(b, "%s -m comment --comment %q -j %s\n", how, "loden "+list.Place.String(), v.hook)
	}
}

// trim deletes surplus jumps and stale chains. Every chain is emptied before any is
// deleted: they refer to each other.
func (v view) trim(b *strings.Builder, keep bool) {
	surplus := v.jumps
	if keep && len(surplus) > 0 {
		surplus = surplus[1:]
	}
	// -D takes the first rule that equals its text, so of equal jumps the last one stays.
	for _, l := range surplus {
		fmt.Fprintf(b, "-D %s %s\n", v.base, l.text)
	}
	for _, name := range v.stale {
		fmt.Fprintf(b, ":%s - [0:0]\n", name)
	}
	for _, name := range v.stale {
		fmt.Fprintf(b, "-X %s\n", name)
	}
}

// Refused sums the counters of the rules that refuse packets at a place.
func (s Snapshot) Refused(p rule.Place) uint64 {
	at := placeOf(p)
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
