package firewall_test

import (
	"fmt"
	"strings"
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
// over the uplink, as on a node without its daemon: no overlay packet may pass, in any direction,
// and traffic of the underlay must pass.
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

// TestGuardThatWarnsCountsAndLetsPass: in mode warn the guard only counts the packets that enforce drops.
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

// TestGuardRefusesOwnPodSourcesFromEachKindOfLink: a host on any link that leads off the node poses as a
// pod of this node (C12). Which links lead off the node is the observation's to say; the guard holds for
// each kind by its name.
func TestGuardRefusesOwnPodSourcesFromEachKindOfLink(t *testing.T) {
	onEachWorld(t, func(t *testing.T, b bed, w world) {
		links := []struct{ name, node, outside string }{
			{name: "nic1"}, // a second network card on a LAN without a default route
			{name: "br2", node: "ip link add br2 type bridge; ip link set port2 master br2"},
			{name: "vx3", node: "ip link add vx3 type vxlan id 7 remote 192.0.2.9 dstport 4789 dev eth0",
				outside: "ip link add vx3 type vxlan id 7 remote 192.0.2.1 dstport 4789 dev eth0"},
		}
		for node, outside := range map[string]string{"nic1": "nic1", "port2": "br2"} {
			if err := sandbox.Wire(w.node, node, w.outside, outside); err != nil {
				t.Fatal(err)
			}
		}
		on(t, w.outside, "ip addr add 10.244.1.77 dev lo; ip addr add fd44:0:0:1::77 dev lo")
		known := policy()
		known.Uplinks = set.NewNames("eth0", "nic1", "br2", "vx3")
		for i, l := range links {
			on(t, w.node, fmt.Sprintf("%s\nip link set %[2]s up; ip addr add 10.50.%[3]d.1/24 dev %[2]s; ip addr add fd50:%[3]d::1/64 dev %[2]s nodad", l.node, l.name, i))
			on(t, w.outside, fmt.Sprintf("%s\nip link set %[2]s up; ip addr add 10.50.%[3]d.9/24 dev %[2]s; ip addr add fd50:%[3]d::9/64 dev %[2]s nodad", l.outside, l.name, i))
			// Neighbours are known: the test is about the guard, not about discovery with a pod's source address.
			mac := strings.Fields(on(t, w.node, "ip -br link show "+l.name))[2]
			on(t, w.outside, fmt.Sprintf("ip neigh replace 10.50.%[1]d.1 lladdr %[2]s dev %[3]s nud permanent; ip neigh replace fd50:%[1]d::1 lladdr %[2]s dev %[3]s nud permanent", i, mac, l.name))
			on(t, w.outside, fmt.Sprintf("ip route replace 10.244.1.2 via 10.50.%d.1; ip -6 route replace fd44:0:0:1::2 via fd50:%[1]d::1", i))
			for _, c := range []firewall.Config{policy().Config("loden0", scopes()), known.Config("loden0", scopes())} {
				fw := w.install(t, b, c)
				for f, from := range map[opt.Family]string{opt.V4: "10.244.1.77", opt.V6: "fd44:0:0:1::77"} {
					q := question{from: from, to: addressesOf(f).pod}
					if c.Guard.Uplinks.Has(l.name) {
						refused(t, w, fw, c, f.String()+" own pod's address on "+l.name, w.outside, q, f, false)
						continue
					}
					before := count(t, w, fw, c, f, false)
					if _, err := ask(w.outside, q, true); err == nil || count(t, w, fw, c, f, false) != before {
						t.Errorf("%s is no uplink here, yet %s: %v", l.name, f, err)
					}
				}
			}
		}
	})
}
