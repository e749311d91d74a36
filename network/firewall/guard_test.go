package firewall_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/loden-net/loden/config/opt"
	"github.com/loden-net/loden/config/set"
	"github.com/loden-net/loden/network/firewall"
	"github.com/loden-net/loden/test/sandbox"
	"github.com/loden-net/loden/test/sandbox/sandboxtest"
)

// refused asks and wants silence, and the guard's counter for it.
func refused(t *testing.T, w world, fw *firewall.Firewall, c firewall.Config, name string, h *sandbox.Host, q question, f opt.Family, out bool) {
	t.Helper()
	before := count(t, w, fw, c, f, out)
	sandboxtest.Until(t, 20*time.Second, name+" to be counted", func() error {
		if seen, err := ask(h, q, true); err == nil {
			return fmt.Errorf("%s came through, seen as %s", name, seen)
		}
		if count(t, w, fw, c, f, out) == before {
			return fmt.Errorf("not counted")
		}
		return nil
	})
}

func count(t *testing.T, w world, fw *firewall.Firewall, c firewall.Config, f opt.Family, out bool) uint64 {
	t.Helper()
	var n uint64
	do(t, w.node, func() error {
		counters, err := fw.Counters(t.Context(), c)
		refused, _ := counters.Of(f).Get()
		if n = refused.In; out {
			n = refused.Out
		}
		return err
	})
	return n
}

// TestGuardKeepsOverlayAddressesOffTheUplink takes the tunnel away and routes the overlay
// over the uplink, as a node without its daemon may: nothing may pass, in any direction,
// and what is no overlay traffic must.
func TestGuardKeepsOverlayAddressesOffTheUplink(t *testing.T) {
	onEachWorld(t, func(t *testing.T, b bed, w world) {
		for _, h := range []*sandbox.Host{w.pod, w.node, w.outside, w.far} {
			echo(t, h)
		}
		c := whole()
		fw := w.install(t, b, c)
		for _, f := range opt.Families() {
			a := addressesOf(f)
			// As long as the tunnel is there everything works.
			must(t, w.pod, question{to: a.far})
			must(t, w.far, question{to: a.pod})
			must(t, w.node, question{to: a.far})
			must(t, w.node, question{to: a.pod})
			must(t, w.pod, question{to: a.outside})
			must(t, w.pod, question{to: a.bridge})
			refused(t, w, fw, c, "outside to pod", w.outside, question{to: a.pod}, f, false)
		}
		on(t, w.node, "ip link set loden0 down")
		for _, f := range opt.Families() {
			a := addressesOf(f)
			ip := map[opt.Family]string{opt.V4: "ip -4 ", opt.V6: "ip -6 "}[f]
			// The outside poses as the remote pod, and as a pod of this node.
			on(t, w.node, ip+"route replace "+network(f)+" via "+a.outside)
			on(t, w.outside, ip+"addr add "+a.far+" dev lo")
			refused(t, w, fw, c, "pod to remote pod", w.pod, question{to: a.far}, f, true)
			refused(t, w, fw, c, "node to remote pod", w.node, question{to: a.far}, f, true)
			refused(t, w, fw, c, "node to remote pod from its uplink's address", w.node, question{from: a.uplink, to: a.far}, f, true)
			refused(t, w, fw, c, "remote pod to pod in clear", w.outside, question{from: a.far, to: a.pod}, f, false)
			refused(t, w, fw, c, "remote pod to node in clear", w.outside, question{from: a.far, to: a.uplink}, f, false)
			// The underlay, the node's own pods and the outside are not cut.
			must(t, w.node, question{to: a.outside})
			must(t, w.outside, question{from: a.outside, to: a.uplink})
			must(t, w.node, question{to: a.pod})
			must(t, w.pod, question{to: a.bridge})
			if got := must(t, w.pod, question{from: a.pod, to: a.outside}); got != a.uplink {
				t.Errorf("%s: pod to outside is seen as %s", f, got)
			}
		}
		// The bridge is gone: packets to the node's own pods go by the default route.
		on(t, w.node, "ip link set cni0 down")
		for _, f := range opt.Families() {
			refused(t, w, fw, c, "node to own pod by the uplink", w.node, question{from: addressesOf(f).uplink, to: addressesOf(f).pod}, f, true)
		}
	})
}

// TestGuardLetsRoutedPodsSpeakWithTheOutside: without masquerade pods have addresses of
// their own outside, which is no leak; pod to pod in clear still is.
func TestGuardLetsRoutedPodsSpeakWithTheOutside(t *testing.T) {
	onEachWorld(t, func(t *testing.T, b bed, w world) {
		for _, h := range []*sandbox.Host{w.pod, w.outside} {
			echo(t, h)
		}
		p := policy()
		p.Masq = false
		c := p.Config("loden0", scopes())
		fw := w.install(t, b, c)
		for _, f := range opt.Families() {
			a := addressesOf(f)
			if got := must(t, w.pod, question{to: a.outside}); got != a.pod {
				t.Errorf("%s: pod to outside is seen as %s", f, got)
			}
			if got := must(t, w.outside, question{to: a.pod}); got != a.outside {
				t.Errorf("%s: outside to pod is seen as %s", f, got)
			}
		}
		on(t, w.node, "ip link set loden0 down")
		for _, f := range opt.Families() {
			a := addressesOf(f)
			ip := map[opt.Family]string{opt.V4: "ip -4 ", opt.V6: "ip -6 "}[f]
			on(t, w.node, ip+"route replace "+network(f)+" via "+a.outside)
			on(t, w.outside, ip+"addr add "+a.far+" dev lo")
			refused(t, w, fw, c, "pod to remote pod", w.pod, question{to: a.far}, f, true)
			refused(t, w, fw, c, "node to remote pod", w.node, question{from: a.uplink, to: a.far}, f, true)
			refused(t, w, fw, c, "remote pod to pod in clear", w.outside, question{from: a.far, to: a.pod}, f, false)
		}
	})
}

// TestGuardThatWarnsCountsAndLetsPass: what enforcing drops, warning only counts.
func TestGuardThatWarnsCountsAndLetsPass(t *testing.T) {
	onEachWorld(t, func(t *testing.T, b bed, w world) {
		echo(t, w.pod)
		p := policy()
		p.Guard = firewall.Warn
		c := p.Config("loden0", scopes())
		fw := w.install(t, b, c)
		for _, f := range opt.Families() {
			must(t, w.outside, question{to: addressesOf(f).pod})
			if count(t, w, fw, c, f, false) == 0 {
				t.Errorf("%s: not counted", f)
			}
		}
	})
}

// TestGuardSparesAnUnderlayInsideTheOverlaysRange: hosts numbered from the pods' own range
// keep speaking with each other, and with the outside.
func TestGuardSparesAnUnderlayInsideTheOverlaysRange(t *testing.T) {
	onEachWorld(t, func(t *testing.T, b bed, w world) {
		echo(t, w.outside)
		echo(t, w.node)
		on(t, w.node, "ip addr add 10.244.80.1/24 dev eth0; ip addr add fd44:0:0:80::1/64 dev eth0 nodad")
		on(t, w.outside, "ip addr add 10.244.80.9/24 dev eth0; ip addr add fd44:0:0:80::9/64 dev eth0 nodad")
		p := policy()
		p.Except = set.NewPrefixes(prefix("10.244.80.0/24"), prefix("fd44:0:0:80::/64"), prefix("192.0.2.0/24"))
		c := p.Config("loden0", scopes())
		fw := w.install(t, b, c)
		must(t, w.node, question{from: "10.244.80.1", to: "10.244.80.9"})
		must(t, w.outside, question{from: "10.244.80.9", to: "10.244.80.1"})
		must(t, w.node, question{from: "fd44:0:0:80::1", to: "fd44:0:0:80::9"})
		must(t, w.pod, question{to: "192.0.2.9"})
		refused(t, w, fw, c, "underlay to pod in clear", w.outside, question{from: "10.244.80.9", to: "10.244.1.2"}, opt.V4, false)
		refused(t, w, fw, c, "underlay to pod in clear", w.outside, question{from: "fd44:0:0:80::9", to: "fd44:0:0:1::2"}, opt.V6, false)
	})
}
