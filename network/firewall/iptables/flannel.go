package iptables

import (
	"fmt"
	"slices"
	"strings"

	"github.com/loden-net/loden/config/opt"
	"github.com/loden-net/loden/network/firewall/rule"
)

// flannel is the rules that flannel left at a place. Its daemon keeps its rules at exit, so a node that
// changes over to Loden has both sets, and either daemon would repair its own.
type flannel struct {
	base   string
	lines  []line   // flannel's rules in the base chain
	chains []string // chains that flannel made
}

func (f flannel) empty() bool { return len(f.lines) == 0 && len(f.chains) == 0 }

// flannelAt finds flannel's rules of every version: chains of its own (since 0.20), marked rules in the
// kernel's chains (since 0.14), and unmarked rules, which are taken for flannel's only where they name
// this node's network in flannel's exact form.
func flannelAt(at slot, chains table, want opt.Option[rule.List]) flannel {
	f := flannel{base: at.base}
	own := map[string]string{"nat": "FLANNEL-POSTRTG", "filter": "FLANNEL-FWD"}[at.table]
	if own == "" {
		return f
	}
	if _, ok := chains[own]; ok {
		f.chains = append(f.chains, own)
	}
	for _, l := range chains[at.base] {
		if l.target == own || marked(l.comment) || unmarked(at, l, want) {
			f.lines = append(f.lines, l)
		}
	}
	return f
}

func marked(comment string) bool {
	return comment == "flanneld masq" || comment == "flanneld forward"
}

// unmarked recognises the four nat rules of versions without comments, for our network.
func unmarked(at slot, l line, want opt.Option[rule.List]) bool {
	list, ok := want.Get()
	if !ok || at.table != "nat" || !l.known || l.comment != "" {
		return false
	}
	network := list.Scope.Network
	r := l.rule
	bare := rule.Rule{Src: r.Src, Dst: r.Dst, Verdict: r.Verdict}
	if r != bare {
		return false
	}
	if r.Verdict == rule.MasqueradeRandom {
		bare.Verdict = rule.Masquerade
	}
	forms := []rule.Rule{
		{Src: rule.In(network), Dst: rule.In(network)},
		{Src: rule.In(network), Dst: rule.NotIn(rule.Multicast(list.Scope.Family())), Verdict: rule.Masquerade},
		{Src: rule.NotIn(network), Dst: rule.In(network), Verdict: rule.Masquerade},
		{Src: rule.NotIn(network), Dst: rule.In(list.Scope.Subnet)},
	}
	return slices.Contains(forms, bare)
}

// remove writes the deletion.
func (f flannel) remove(b *strings.Builder) {
	for _, l := range f.lines {
		fmt.Fprintf(b, "-D %s %s\n", f.base, l.text)
	}
	for _, name := range f.chains {
		fmt.Fprintf(b, ":%s - [0:0]\n-X %s\n", name, name)
	}
}
