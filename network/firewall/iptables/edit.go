package iptables

import (
	"fmt"
	"strings"

	"github.com/loden-net/loden/config/opt"
	"github.com/loden-net/loden/network/firewall/rule"
)

// Edit returns the input for iptables-restore that makes a place as desired: a single table and commit. It
// is empty when the place is in sync.
func (s Snapshot) Edit(p rule.Place, want opt.Option[rule.List]) string {
	if s.Compare(p, want).InSync {
		return ""
	}
	v := s.view(p, want)
	var b strings.Builder
	fmt.Fprintf(&b, "*%s\n", v.table)
	if list, ok := want.Get(); ok {
		v.fill(&b, list, s.Refused(p))
	}
	v.trimJumps(&b, want)
	v.flannel.remove(&b)
	v.trimChains(&b)
	b.WriteString("COMMIT\n")
	return b.String()
}

// fill declares every chain, which empties it, and writes its rules. The packets that the old rules
// refused are carried over to the first rule that refuses: operators and metrics read a sum that never
// falls.
func (v view) fill(b *strings.Builder, list rule.List, refused uint64) {
	chains := v.chainsOf(list)
	for _, c := range chains {
		fmt.Fprintf(b, ":%s - [0:0]\n", c.Name)
	}
	fmt.Fprintf(b, ":%s - [0:0]\n", v.anchor)
	for _, c := range chains {
		for _, r := range c.Rules {
			if refused > 0 && rule.Refuses(r.Comment) {
				fmt.Fprintf(b, "[%d:0] ", refused)
				refused = 0
			}
			fmt.Fprintf(b, "-A %s %s\n", c.Name, render(r))
		}
	}
	fmt.Fprintf(b, "-A %s -m comment --comment %q -j %s\n", v.anchor, list.Title(), chains[len(chains)-1].Name)
}

// trimJumps leaves a single jump to the anchor, where it takes effect, or no jump.
func (v view) trimJumps(b *strings.Builder, want opt.Option[rule.List]) {
	surplus := v.jumps
	if want.Present() && len(surplus) > 0 && !v.unreached {
		surplus = surplus[1:]
	}
	// -D takes the first rule that equals its text, so of equal jumps the last one stays.
	for _, l := range append(surplus, v.replaced...) {
		fmt.Fprintf(b, "-D %s %s\n", v.base, l.text)
	}
	if !want.Present() || len(v.jumps) > len(surplus) {
		return
	}
	how := "-A " + v.base
	if i, obstructed := v.obstacle(v.without(append(surplus, v.replaced...)), want); obstructed {
		how = fmt.Sprintf("-I %s %d", v.base, i+1)
	}
	if v.first {
		how = "-I " + v.base + " 1"
	}
	fmt.Fprintf(b, "%s -m comment --comment %q -j %s\n", how, v.jumpComment(), v.anchor)
}

// without returns the chains as they are after the deletion of some rules of the base chain.
func (v view) without(gone []line) table {
	base := make([]line, 0, len(v.chains[v.base]))
	left := map[string]int{}
	for _, l := range gone {
		left[l.text]++
	}
	for _, l := range v.chains[v.base] {
		if left[l.text] > 0 {
			left[l.text]--
			continue
		}
		base = append(base, l)
	}
	out := table{}
	for name, rules := range v.chains {
		out[name] = rules
	}
	out[v.base] = base
	return out
}

// trimChains deletes stale chains. Every chain is emptied before any is deleted: they refer to each
// other.
func (v view) trimChains(b *strings.Builder) {
	for _, name := range v.stale {
		fmt.Fprintf(b, ":%s - [0:0]\n", name)
	}
	for _, name := range v.stale {
		fmt.Fprintf(b, "-X %s\n", name)
	}
}
