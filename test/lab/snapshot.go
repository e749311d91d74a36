package lab

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/loden-net/loden/test/sandbox"
)

// views are the commands whose output together is the content of a network namespace. A
// command that is missing on the machine adds no line.
var views = [][2]string{
	{"links", "ip -d link"},
	{"addresses", "ip addr"},
	{"IPv4 routes", "ip -4 route show table all"},
	{"IPv6 routes", "ip -6 route show table all"},
	{"IPv4 rules", "ip -4 rule"},
	{"IPv6 rules", "ip -6 rule"},
	{"iptables", "iptables-nft-save"},
	{"ip6tables", "ip6tables-nft-save"},
	{"iptables-legacy", "iptables-legacy-save"},
	{"ip6tables-legacy", "ip6tables-legacy-save"},
	{"nftables", "nft list ruleset"},
	{"settings", "sysctl -a -r ^net[.]"},
	{"files", "ls -A /run/flannel /run/wireguard /etc/cni/net.d"},
}

// passing matches what changes in a namespace that nobody touches: counters, times, and
// the settings that count.
var passing = regexp.MustCompile(`\[\d+:\d+\]|expires \d+sec|counter packets \d+ bytes \d+|(valid|preferred)_lft \d+sec|^#.*|` +
	`net\.netfilter\.nf_conntrack_count.*|net\.ipv[46]\.route\.flush.*|(gc_timer|hello_timer|tcn_timer|topology_change_timer) +[\d.]+|stable_secret.*`)

// Snapshot returns what a host's network namespace holds, one line per thing, without what
// passes by itself. Two snapshots are compared with Differences.
func Snapshot(h *sandbox.Host) []string {
	var out []string
	for _, v := range views {
		text, _ := h.Output("sh", "-c", v[1]+" 2>/dev/null") // a failing command adds no line
		for line := range strings.Lines(text) {
			line = strings.TrimSpace(passing.ReplaceAllString(strings.TrimRight(line, "\n"), ""))
			if line != "" {
				out = append(out, v[0]+": "+line)
			}
		}
	}
	return out
}

// Differences returns the lines that only a single snapshot has, marked by - and +.
func Differences(before, after []string) []string {
	var out []string
	for _, line := range before {
		if !slices.Contains(after, line) {
			out = append(out, "- "+line)
		}
	}
	for _, line := range after {
		if !slices.Contains(before, line) {
			out = append(out, "+ "+line)
		}
	}
	if len(out) == 0 && len(before) != len(after) {
		out = append(out, fmt.Sprintf("%d lines became %d", len(before), len(after)))
	}
	return out
}
