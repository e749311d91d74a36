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

// slot is where the rules of one place live in the daemon's table.
type slot struct {
	anchor   string // the base chain, which jumps to the chain that is named after its rules
	prefix   string // of the chains that are named after their rules
	counter  string // of the packets that its rules refuse; empty where no rule refuses
	kind     string // filter or nat
	point    string // the kernel's hook
	number   uint32 // of the hook: NF_INET_*
	priority int32
}

func slotOf(p rule.Place) slot {
	switch p {
	case rule.GuardIn: // raw: before connection tracking and any translation
		return slot{anchor: "guard-in", prefix: "in-", counter: "refused-in", kind: "filter", point: "prerouting", number: 0, priority: -300}
	case rule.GuardOut: // after source translation (100): the guard judges the source on the wire
		return slot{anchor: "guard-out", prefix: "out-", counter: "refused-out", kind: "filter", point: "postrouting", number: 4, priority: 300}
	case rule.Forward:
		return slot{anchor: "forward", prefix: "fwd-", kind: "filter", point: "forward", number: 2, priority: 0}
	}
	// Just after kube-proxy's and iptables' own (100): the program that translates first has decided.
	return slot{anchor: "postrouting", prefix: "masq-", kind: "nat", point: "postrouting", number: 4, priority: 105}
}

// fits reports whether the kernel calls a chain as it should call the slot's anchor.
func (at slot) fits(c netfilter.Chain) bool {
	const accept = 1 // NF_ACCEPT
	return c.Type == at.kind && c.Hook == at.number && c.Priority == at.priority && c.Policy == accept
}

// text is a rule in the language of nft.
type text struct{ body, comment, target string }

// textChain is a chain in the language of nft.
type textChain struct {
	name  string
	rules []text
}

// chainsOf renders a list; the anchor comes last.
func (at slot) chainsOf(f opt.Family, list rule.List) []textChain {
	var out []textChain
	for _, c := range list.Named(at.prefix, rule.SumDigits) {
		t := textChain{name: c.Name}
		for _, r := range c.Rules {
			if r.Translated {
				continue // the guard is asked after translation here
			}
			body := at.render(f, r)
			t.rules = append(t.rules, text{body: body, comment: r.Comment + " " + tag(body), target: r.Chain})
		}
		out = append(out, t)
	}
	entry := out[len(out)-1].name
	return append(out, textChain{name: at.anchor, rules: []text{{
		body: "jump " + entry, comment: list.Title(), target: entry,
	}}})
}

// tag stands for a rule's text in its comment: the kernel's form of a rule differs from version to
// version, the comment comes back as it was written.
func tag(body string) string {
	sum := sha256.Sum256([]byte(body))
	return "#" + hex.EncodeToString(sum[:4])
}

// render writes a rule for nft.
func (at slot) render(f opt.Family, r rule.Rule) string {
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
	if r.TCP != 0 {
		w = append(w, fmt.Sprintf("tcp dport %d", r.TCP))
	}
	if r.Local { // the tunnel's IPv6 address, the first of the subnet, is an anycast address as well
		w = append(w, "fib daddr type { local, anycast }")
	}
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

func (at slot) verdict(r rule.Rule) string {
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
