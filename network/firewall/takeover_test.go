package firewall_test

import (
	"strings"
	"testing"

	"github.com/loden-net/loden/config/opt"
	"github.com/loden-net/loden/network/firewall"
)

// flannelVariants are the rules that flannel leaves on a node, by the age of its version,
// as scripts. @T is iptables of the family, @C the network, @P the node's subnet, @M multicast.
func flannelVariants() map[string]string {
	return map[string]string{
		"chains of its own": `
			@T -t nat -N FLANNEL-POSTRTG; @T -N FLANNEL-FWD
			@T -t nat -A POSTROUTING -m comment --comment "flanneld masq" -j FLANNEL-POSTRTG
			@T -t nat -A FLANNEL-POSTRTG -m mark --mark 0x4000/0x4000 -m comment --comment "flanneld masq" -j RETURN
			@T -t nat -A FLANNEL-POSTRTG -s @P -d @C -m comment --comment "flanneld masq" -j RETURN
			@T -t nat -A FLANNEL-POSTRTG -s @C ! -d @M -m comment --comment "flanneld masq" -j MASQUERADE --random-fully
			@T -t nat -A FLANNEL-POSTRTG ! -s @C -d @C -m comment --comment "flanneld masq" -j MASQUERADE --random-fully
			@T -A FORWARD -m comment --comment "flanneld forward" -j FLANNEL-FWD
			@T -A FLANNEL-FWD -s @C -m comment --comment "flanneld forward" -j ACCEPT
			@T -A FLANNEL-FWD -d @C -m comment --comment "flanneld forward" -j ACCEPT`,
		"marked rules": `
			@T -t nat -A POSTROUTING -s @C -d @C -m comment --comment "flanneld masq" -j RETURN
			@T -t nat -A POSTROUTING -s @C ! -d @M -m comment --comment "flanneld masq" -j MASQUERADE --random-fully
			@T -t nat -A POSTROUTING ! -s @C -d @P -m comment --comment "flanneld masq" -j RETURN
			@T -t nat -A POSTROUTING ! -s @C -d @C -m comment --comment "flanneld masq" -j MASQUERADE --random-fully
			@T -A FORWARD -s @C -m comment --comment "flanneld forward" -j ACCEPT
			@T -A FORWARD -d @C -m comment --comment "flanneld forward" -j ACCEPT`,
		"unmarked rules": `
			@T -t nat -A POSTROUTING -s @C -d @C -j RETURN
			@T -t nat -A POSTROUTING -s @C ! -d @M -j MASQUERADE
			@T -t nat -A POSTROUTING ! -s @C -d @P -j RETURN
			@T -t nat -A POSTROUTING ! -s @C -d @C -j MASQUERADE --random-fully`,
		"nftables": `
			nft add table ip flannel-ipv4; nft add table ip6 flannel-ipv6
			nft 'add chain ip flannel-ipv4 postrtg { type nat hook postrouting priority srcnat; }'
			nft 'add rule ip flannel-ipv4 postrtg ip saddr 10.244.0.0/16 masquerade'`,
	}
}

// flannel installs a variant with the bed's tools.
func (b bed) flannel(t testing.TB, script string) {
	t.Helper()
	if strings.Contains(script, "nft add") {
		shell(t, script)
		return
	}
	shell(t, strings.NewReplacer("@T", b.tool(opt.V4), "@C", "10.244.0.0/16", "@P", "10.244.1.0/24", "@M", "224.0.0.0/4").Replace(script))
	shell(t, strings.NewReplacer("@T", b.tool(opt.V6), "@C", "fd44::/48", "@P", "fd44:0:0:1::/64", "@M", "ff00::/8").Replace(script))
}

func TestTakesOverFromFlannel(t *testing.T) {
	for name, script := range flannelVariants() {
		t.Run(name, func(t *testing.T) {
			onEach(t, func(t *testing.T, b bed) {
				if name == "unmarked rules" && b.backend == "nftables" {
					return // rules without a mark are recognised by iptables alone
				}
				f := b.open(t)
				apply(t, f, whole())
				want := ruleset(t)
				apply(t, f, firewall.Config{})
				b.flannel(t, script)
				changes := apply(t, b.open(t), whole())
				if got := ruleset(t); sorted(got) != sorted(want) {
					t.Errorf("after %v:\n%s\nwant:\n%s", changes, got, want)
				}
				// Its rules go in the transaction that installs ours where both are in one
				// back-end: no change of its own for them.
				same := (b.backend == "nftables") == (name == "nftables")
				if same && len(changes) != 4 {
					t.Errorf("changes: %v", changes)
				}
			})
		})
	}
}

func TestDownLeavesFlannelAlone(t *testing.T) {
	for name, script := range flannelVariants() {
		onEach(t, func(t *testing.T, b bed) {
			b.flannel(t, script)
			before := ruleset(t)
			apply(t, b.open(t), firewall.Config{})
			if after := ruleset(t); after != before {
				t.Errorf("%s: left\n%s\nfound\n%s", name, after, before)
			}
		})
	}
}
