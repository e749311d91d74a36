package system_test

import (
	"fmt"
	"testing"

	"github.com/loden-net/loden/test/lab"
)

// TestEveryPodReachesEveryPodAndTheOutsideEncrypted is the product: each set-up of
// families over each underlay, every pair of pods, and masquerade to the outside; on the
// wire WireGuard and etcd only.
func TestEveryPodReachesEveryPodAndTheOutsideEncrypted(t *testing.T) {
	for _, families := range []lab.Families{lab.Dual, lab.IPv4, lab.IPv6} {
		for _, underlay := range []lab.Families{lab.IPv4, lab.IPv6} {
			t.Run(fmt.Sprintf("%s over %s", families, underlay), func(t *testing.T) {
				l := upLab(t, lab.Options{Nodes: 3, Pods: 2, Families: families, Underlay: underlay, Engines: []string{"auto", "loden", "wireguard-go"}})
				v := verdict(t, l)
				// 6 pods ask the 5 other pods and the outside in each family.
				want := 6 * 5 * len(families.List())
				if len(v.Paths) != want || len(v.Exits) != 6*len(families.List()) {
					t.Errorf("%d paths and %d exits tried, want %d and %d", len(v.Paths), len(v.Exits), want, 6*len(families.List()))
				}
				if v.Underlay[lab.Tunnel] == 0 || v.Underlay[lab.Etcd] == 0 {
					t.Errorf("underlay %v: want WireGuard and etcd on it", v.Underlay)
				}
			})
		}
	}
}

// TestPodsExchangeFullSizePackets sends packets of a pod's whole MTU: the sum that makes the
// tunnel's MTU is right when no packet is too long for the underlay.
func TestPodsExchangeFullSizePackets(t *testing.T) {
	// The underlay's 1500 less IP, UDP 8, WireGuard's header and tag 16 + 16.
	for underlay, mtu := range map[lab.Families]int{lab.IPv4: 1500 - 20 - 8 - 16 - 16, lab.IPv6: 1500 - 40 - 8 - 16 - 16} {
		t.Run(string(underlay), func(t *testing.T) {
			l := upLab(t, lab.Options{Nodes: 2, Pods: 1, Underlay: underlay})
			a, b := l.Nodes[0].Pods[0], l.Nodes[1].Pods[0]
			if a.MTU != mtu {
				t.Errorf("pod MTU %d, want %d", a.MTU, mtu)
			}
			for f, to := range b.Addrs.All() {
				if _, err := lab.Ping(t.Context(), a.Host, to, a.MTU); err != nil {
					t.Errorf("%s: %v", f, err)
				}
			}
			verdict(t, l)
		})
	}
}
