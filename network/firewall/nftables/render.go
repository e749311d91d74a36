package nftables

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strings"

	"github.com/loden-net/loden/config/opt"
	"github.com/loden-net/loden/network/firewall/netfilter"
	"github.com/loden-net/loden/network/firewall/rule"
)

// place is where a list of rules lives in our table.
type place struct {
	hook     string // our chain that the kernel calls
	prefix   string // of the chains named after their rules
	counter  string // of what its rules refuse; empty where they refuse nothing
	kind     string // filter or nat
	point    string // the kernel's hook
	number   uint32 // of the hook: NF_INET_*
	priority int32
}

func placeOf(p rule.Place) place {
	switch p {
	case rule.GuardIn: // raw: before connection tracking and any translation
		return place{hook: "guard-in", prefix: "in-", counter: "refused-in", kind: "filter", point: "prerouting", number: 0, priority: -300}
	case rule.GuardOut: // after source translation (100): what counts is the source on the wire
		return place{hook: "guard-out", prefix: "out-", counter: "refused-out", kind: "filter", point: "postrouting", number: 4, priority: 300}
	case rule.Forward:
		return place{hook: "forward", prefix: "fwd-", kind: "filter", point: "forward", number: 2, priority: 0}
	}
	// Just after kube-proxy's and iptables' own (100): who translates first has decided.
	return place{hook: "postrouting", prefix: "masq-", kind: "nat", point: "postrouting", number: 4, priority: 105}
}

// fits reports whether a chain is called where and as the place's should be.
func (at place) fits(c netfilter.Chain) bool {
	const accept = 1 // NF_ACCEPT
	return c.Type == at.kind && c.Hook == at.number && c.Priority == at.priority && c.Policy == accept
}

// text is one rule as nft reads it.
type text struct{ body, comment, target string }

// textChain is one chain as nft reads it.
type textChain struct {
	name  string
	rules []text
}

// chainsOf renders a list; the hook chain comes last.
func (at place) chainsOf(f opt.Family, list rule.List) []textChain {
	var out []textChain
	for _, c := range list.Named(at.prefix) {
		t := textChain{name: c.Name}
		for _, r := range c.Rules {
			if r.Translated {
				continue // the guard is asked after translation here
			}
			body := at.render(f, r)
			t.rules = append(t.rules, text{body: body, comment: r.Why + " " + tag(body), target: r.Chain})
		}
		out = append(out, t)
	}
	entry := out[len(out)-1].name
	return append(out, textChain{name: at.hook, rules: []text{{
		body: "jump " + entry, comment: list.Title(), target: entry,
	}}})
}

// tag stands for a rule's text in its comment: the kernel's own form differs from version
// to version, the comment comes back as it was.
func tag(body string) string {
	sum := sha256.Sum256([]byte(body))
	return "#" + hex.EncodeToString(sum[:4])
}

// render writes a rule for nft.
func (at place) render(f opt.Family, r rule.Rule) string {
	ip := "ip"
	if f == opt.V6 {
		ip = "ip6"
	}
	var w []string
	if r.InIface != "" {
		w = append(w, fmt.Sprintf("iifname %q", r.InIface))
	}
	if r.OutIface != "" {
		w = append(w, fmt.Sprintf("oifname %q", r.OutIface))
	}
	if r.Mark != (rule.Mark{}) {
		w = append(w, fmt.Sprintf("meta mark & %#x == %#x", r.Mark.Mask, r.Mark.Value))
	}
	w = append(w, address(ip+" saddr", r.Src)...)
	w = append(w, address(ip+" daddr", r.Dst)...)
	return strings.Join(append(w, at.verdict(r)), " ")
}

func address(field string, n rule.Net) []string {
	switch {
	case !n.Prefix.IsValid() || !n.Not && n.Prefix.Bits() == 0:
		return nil
	case n.Not:
		return []string{field, "!=", n.Prefix.String()}
	}
	return []string{field, n.Prefix.String()}
}

func (at place) verdict(r rule.Rule) string {
	switch r.Verdict {
	case rule.Accept:
		return "accept"
	case rule.Masquerade:
		return "masquerade"
	case rule.MasqueradeRandom:
		return "masquerade fully-random"
	case rule.Drop:
		return fmt.Sprintf("counter name %q drop", at.counter)
	case rule.Warn:
		return fmt.Sprintf("counter name %q return", at.counter)
	case rule.Goto:
		return "goto " + r.Chain
	}
	return "return"
}
