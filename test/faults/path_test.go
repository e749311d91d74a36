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
		{30, "a foreign chain of the peer's host drops forwarded packets", false, func(t *testing.T, b *bed) []evidence {
			sh(t, b.b, "nft 'add table inet fw; add chain inet fw f { type filter hook forward priority 0; policy drop; }'")
			return []evidence{{b.a, []string{"why", b.a.Pods[0].Addrs.V4.String(), b.b.Pods[0].Addrs.V4.String()}, `broken at packet filters on node2: nft chain inet fw f: its policy drops`, `nft insert rule inet fw f ip saddr 10.244.0.0/16 accept`}}
		}, func(t *testing.T, b *bed) { sh(t, b.b, "nft delete table inet fw") }},
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
