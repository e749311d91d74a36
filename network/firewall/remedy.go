package firewall

import (
	"fmt"
	"slices"
	"strings"

	"github.com/loden-net/loden/config/opt"
	"github.com/loden-net/loden/network/firewall/iptables"
	"github.com/loden-net/loden/network/firewall/reach"
)

// remedy says how an operator mends a chain that drops packets of the overlay.
type remedy struct {
	reach.Finding
	judgement
	variant iptables.Variant // Legacy for the tables of iptables-legacy, else the chain is in nf_tables
}

// object names the chain.
func (r remedy) object() string {
	if r.variant == iptables.Legacy {
		return fmt.Sprintf("%s-legacy chain %s of table %s", iptables.Plain(r.family), r.Chain.Name, r.Chain.Table)
	}
	return fmt.Sprintf("nft chain %s %s %s", r.Chain.Family, r.Chain.Table, r.Chain.Name)
}

// purpose says the consequence, where it is not plain, and the aim of the commands.
func (r remedy) purpose() string {
	switch r.Kind {
	case reach.Received:
		return "peers that this node has not sent to cannot reach it; accept the port there"
	case reach.Sent:
		return "this node reaches no peer that has not sent to it; accept the port there"
	}
	return "accept the pods' packets there"
}

// commands returns the commands that mend the chain now, and the commands that keep firewalld and ufw
// from undoing them.
func (r remedy) commands() string {
	listening, _ := r.traffic.Handshakes.Get()
	pods, _ := r.traffic.Pods.Get()
	switch r.Kind {
	case reach.Received:
		return r.accept("udp dport %d", "-p udp --dport %d", listening.Port) +
			r.keep(fmt.Sprintf("firewall-cmd --permanent --add-port=%d/udp && firewall-cmd --reload", listening.Port), fmt.Sprintf("ufw allow %d/udp", listening.Port))
	case reach.Sent:
		return r.accept("udp sport %d", "-p udp --sport %d", listening.Port) + r.keep("", "ufw allow out proto udp from any port "+fmt.Sprint(listening.Port))
	}
	ip := "ip "
	if r.family == opt.V6 {
		ip = "ip6 "
	}
	network := pods.Scope.Network
	return r.accept(ip+"saddr %s", "-s %s", network) + " && " + r.accept(ip+"daddr %s", "-d %s", network) +
		r.keep(fmt.Sprintf("firewall-cmd --permanent --zone=trusted --add-source=%s && firewall-cmd --reload", network),
			fmt.Sprintf("ufw route allow from %[1]s && ufw route allow to %[1]s", network))
}

// accept returns the command that accepts packets in the chain, in the language of nft or of iptables.
func (r remedy) accept(nft, old string, argument any) string {
	if r.variant == iptables.Legacy {
		return fmt.Sprintf("%s-legacy -w -t %s -I %s "+old+" -j ACCEPT", iptables.Plain(r.family), r.Chain.Table, r.Chain.Name, argument)
	}
	return fmt.Sprintf("nft insert rule %s %s %s "+nft+" accept", r.Chain.Family, r.Chain.Table, r.Chain.Name, argument)
}

// keep returns the command by which the program that made the chain keeps the rule, in brackets.
func (r remedy) keep(firewalld, ufw string) string {
	switch {
	case r.Chain.Table == "firewalld" && firewalld != "":
		return fmt.Sprintf(" (and, to keep it: %s)", firewalld)
	case slices.ContainsFunc(r.Visited, func(chain string) bool { return strings.HasPrefix(chain, "ufw") }):
		return fmt.Sprintf(" (and, to keep it: %s)", ufw)
	}
	return ""
}
