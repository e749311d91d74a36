package firewall_test

import (
	"maps"
	"testing"
	"time"

	"github.com/loden-net/loden/config/opt"
	"github.com/loden-net/loden/config/set"
	"github.com/loden-net/loden/network/firewall"
	"github.com/loden-net/loden/test/sandbox"
	"github.com/loden-net/loden/test/sandbox/sandboxtest"
)

// TestBackEndsTreatTheSamePacketsAlike sends every kind of packet through every back-end
// and looks at the source that the far end sees. flannel's two back-ends differ in "node to
// remote pod" (its nftables rule 4).
func TestBackEndsTreatTheSamePacketsAlike(t *testing.T) {
	seen := map[string]map[string]string{}
	onEachWorld(t, func(t *testing.T, b bed, w world) {
		for _, h := range []*sandbox.Host{w.pod, w.node, w.outside, w.far} {
			echo(t, h)
		}
		off := policy()
		off.Guard = firewall.Off
		w.install(t, b, off.Config("loden0", scopes()))
		got := map[string]string{}
		for _, f := range opt.Families() {
			a := addressesOf(f)
			for name, c := range map[string]struct {
				host *sandbox.Host
				q    question
				want string
			}{
				"node to remote pod, from the uplink's address":           {w.node, question{from: a.uplink, to: a.far}, a.tunnel},
				"node to remote pod":                                      {w.node, question{to: a.far}, a.tunnel},
				"pod to outside":                                          {w.pod, question{to: a.outside}, a.uplink},
				"pod to outside, kube-proxy's mark":                       {w.pod, question{to: a.outside}, a.uplink},
				"node to outside from a pod's address, kube-proxy's mark": {w.node, question{from: a.bridge, to: a.outside, mark: 0x4000}, a.bridge},
				"node to outside from a pod's address, another mark":      {w.node, question{from: a.bridge, to: a.outside, mark: 0x8000}, a.uplink},
				"outside to pod":                                          {w.outside, question{to: a.pod}, a.outside},
				"pod to own node":                                         {w.pod, question{to: a.bridge}, a.pod},
				"pod to remote pod":                                       {w.pod, question{to: a.far}, a.pod},
				"remote pod to pod":                                       {w.far, question{to: a.pod}, a.far},
				"node to own pod":                                         {w.node, question{to: a.pod}, a.bridge},
			} {
				key := in(f, "%s", name)
				got[key] = must(t, c.host, c.q)
				if got[key] != c.want {
					t.Errorf("%s: the far end sees %s, want %s", key, got[key], c.want)
				}
			}
		}
		got["multicast"] = multicast(t, w)
		seen[b.name] = got
	})
	for name, got := range seen {
		if !maps.Equal(got, seen["nftables"]) {
			t.Errorf("%s: %v\nnftables: %v", name, got, seen["nftables"])
		}
	}
}

// multicast sends IPv4 datagrams from the bridge's address to a group by the uplink and
// returns the source that is on the wire.
func multicast(t *testing.T, w world) string {
	t.Helper()
	const group = "224.0.0.251"
	bridge := addressesOf(opt.V4).bridge
	sources := make(chan string, 1)
	stop := sniff(t, w.outside, group, sources)
	defer stop()
	var got string
	sandboxtest.Until(t, 20*time.Second, "a multicast on the wire", func() error {
		if err := w.node.Do(func() error { return sendTo(bridge, group, "eth0") }); err != nil {
			return err
		}
		select {
		case got = <-sources:
			return nil
		case <-time.After(100 * time.Millisecond):
			return errSilence
		}
	})
	if got != bridge {
		t.Errorf("a multicast from %s is on the wire as %s", bridge, got)
	}
	return got
}

// TestR15NodeReachesRemotePodsAndExclusionsShowPods: rule 6 is there and works in every
// back-end, and a destination can be excluded.
func TestR15NodeReachesRemotePodsAndExclusionsShowPods(t *testing.T) {
	onEachWorld(t, func(t *testing.T, b bed, w world) {
		echo(t, w.outside)
		echo(t, w.far)
		p := policy()
		p.Exclude = set.NewPrefixes(prefix("192.0.2.8/29"), prefix("2001:db8::8/125"))
		w.install(t, b, p.Config("loden0", scopes()))
		for _, f := range opt.Families() {
			a := addressesOf(f)
			if got := must(t, w.node, question{from: a.uplink, to: a.far}); got != a.tunnel {
				t.Errorf("%s: node to remote pod is seen as %s, want %s", f, got, a.tunnel)
			}
			// The guard is on and lets the pod's address through, both ways.
			if got := must(t, w.pod, question{to: a.outside}); got != a.pod {
				t.Errorf("%s: excluded destination sees %s, want %s", f, got, a.pod)
			}
		}
	})
}
