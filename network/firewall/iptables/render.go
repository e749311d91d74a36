package iptables

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/loden-net/loden/network/firewall/rule"
)

// translated lists the states in which connection tracking holds a packet whose source is translated, or
// will be: new connections are about to meet the masquerade rules.
const translated = "NEW,RELATED,SNAT,DNAT"

// localTypes lists the types of the node's own addresses. The tunnel's IPv6 address, the first of the
// subnet, is an anycast address as well, once the bridge has its address.
const localTypes = "LOCAL,ANYCAST"

// render writes a rule in the form and order in which `iptables -S` lists it, without the
// chain.
func render(r rule.Rule) string {
	var w []string
	w = append(w, address("-s", r.Src)...)
	w = append(w, address("-d", r.Dst)...)
	if r.InIface != "" {
		w = append(w, "-i", r.InIface)
	}
	if r.OutIface != "" {
		w = append(w, "-o", r.OutIface)
	}
	if r.TCP != 0 {
		w = append(w, "-p", "tcp", "-m", "tcp", "--dport", strconv.Itoa(int(r.TCP)))
	}
	if r.Local {
		w = append(w, "-m", "addrtype", "--dst-type", localTypes)
	}
	if r.Mark != (rule.Mark{}) {
		w = append(w, "-m", "mark", "--mark", fmt.Sprintf("%#x/%#x", r.Mark.Value, r.Mark.Mask))
	}
	if r.Translated {
		w = append(w, "-m", "conntrack", "--ctstate", translated)
	}
	if r.Comment != "" {
		w = append(w, "-m", "comment", "--comment", strconv.Quote(r.Comment))
	}
	return strings.Join(append(w, verdict(r)...), " ")
}

func address(flag string, n rule.Net) []string {
	switch {
	case !n.Prefix.IsValid():
		return nil
	case n.Not:
		return []string{"!", flag, n.Prefix.String()}
	}
	return []string{flag, n.Prefix.String()}
}

func verdict(r rule.Rule) []string {
	switch r.Verdict {
	case rule.Accept:
		return []string{"-j", "ACCEPT"}
	case rule.Masquerade:
		return []string{"-j", "MASQUERADE"}
	case rule.MasqueradeRandom:
		return []string{"-j", "MASQUERADE", "--random-fully"}
	case rule.Drop:
		return []string{"-j", "DROP"}
	case rule.Goto:
		return []string{"-g", r.Chain}
	}
	return []string{"-j", "RETURN"} // Warn too: the rule's own counter is the warning
}
