package faults_test

import (
	"testing"
)

// blocked is shell commands that drop datagrams of the tunnel on a hook of a node.
func blocked(hook, match string) string {
	return "nft 'add table inet path; add chain inet path " + hook + " { type filter hook " + hook + " priority -300; }; add rule inet path " + hook + " udp dport 51820 " + match + " drop'"
}

const unblocked = "nft delete table inet path"

// pathFaults are faults between the nodes.
func pathFaults() []fault {
	return []fault{
		{2, "UDP is blocked towards this node", false, func(t *testing.T, b *bed) []evidence {
			sh(t, b.a, blocked("input", ""))
			return ofStatus(b, `peer node2: ipv4 is (down|one-way)`, `UDP|51820`)
		}, on(unblocked)},
		{3, "UDP is blocked both ways", false, func(t *testing.T, b *bed) []evidence {
			sh(t, b.a, blocked("input", ""))
			sh(t, b.b, blocked("input", ""))
			return ofStatus(b, `peer node2: ipv4 is down`, `UDP|51820`)
		}, func(t *testing.T, b *bed) { sh(t, b.a, unblocked); sh(t, b.b, unblocked) }},
		{4, "large packets are lost without an ICMP message", false, func(t *testing.T, b *bed) []evidence {
			sh(t, b.a, blocked("input", "meta length > 1400"))
			sh(t, b.b, blocked("input", "meta length > 1400"))
			return ofStatus(b, `peer node2: ipv[46] is mtu`, `(?i)mtu`)
		}, func(t *testing.T, b *bed) { sh(t, b.a, unblocked); sh(t, b.b, unblocked) }},
		{32, "the host of a peer is dead", false, func(t *testing.T, b *bed) []evidence {
			sh(t, b.b, "ip link set eth0 down")
			return ofStatus(b, `peer node2: ipv4 is down`, `node2`)
		}, func(t *testing.T, b *bed) { sh(t, b.b, "ip link set eth0 up") }},
		{33, "the uplink's MTU is larger than the path's", false, func(t *testing.T, b *bed) []evidence {
			sh(t, b.a, "ip link set eth0 mtu 9000")
			sh(t, b.b, "ip link set eth0 mtu 9000")
			return ofStatus(b, `peer node2: ipv[46] is mtu`, `(?i)mtu`)
		}, func(t *testing.T, b *bed) {
			sh(t, b.a, "ip link set eth0 mtu 1500")
			sh(t, b.b, "ip link set eth0 mtu 1500")
		}},
	}
}
