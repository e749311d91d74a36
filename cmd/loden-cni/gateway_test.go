package main_test

import (
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/containernetworking/cni/libcni"
	"github.com/containernetworking/cni/pkg/types"
)

// The bridge's gateway address used to be tentative for two seconds: the node's first pod had no
// IPv6 meanwhile (newcomer 10).
func TestGatewayOfTheFirstPodAnswersAtOnce(t *testing.T) {
	t.Parallel()
	n := newNode(t, families[0].env, conflist("1.0.0", ""))
	n.add(t, n.pod(t, "a"))
	out, err := n.Output("ip", "-6", "-o", "addr", "show", "dev", "cni0", "scope", "global")
	if err != nil || !strings.Contains(out, "fd44:0:0:3::1/64") || strings.Contains(out, "tentative") {
		t.Errorf("cni0 has %s (%v), want fd44:0:0:3::1/64, not tentative", out, err)
	}
	if out, err := n.Output("ip", "netns", "exec", n.Name+"-a", "ping", "-c1", "-W1", "fd44:0:0:3::1"); err != nil {
		t.Errorf("ping the gateway right after ADD: %v: %s", err, out)
	}
}

// A bridge that Loden makes in advance equals the bridge of the plugin.
func TestBridgeMadeInAdvanceIsAsThePluginMakesIt(t *testing.T) {
	t.Parallel()
	n := newNode(t, families[0].env, conflist("1.0.0", ""))
	n.add(t, n.pod(t, "a"))
	n.use(t, conflist("1.0.0", `,"delegate":{"bridge":"other","vlan":0,"isDefaultGateway":true,"hairpinMode":true}`)) // "vlan" leaves the bridge to the plugin
	n.add(t, n.pod(t, "b"))
	show := func(name string) string {
		out, err := n.Output("sh", "-c", "ip -d link show "+name+" | sed 's/.*mtu/mtu/; s/link.ether [^ ]*//; s/group_address.*//; s/bridge_id [^ ]*//; s/designated_root [^ ]*//; s/[a-z_]*timer *[0-9.]*//g'")
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	if ours, theirs := show("cni0"), show("other"); ours != theirs {
		t.Errorf("bridge made in advance:\n%s\nthe plugin's:\n%s", ours, theirs)
	}
}

// The bridge loses its IPv6 address, for example by disable_ipv6 set and cleared: CHECK and
// STATUS used to say that all is well (newcomer 3).
func TestCheckAndStatusSeeABridgeWithoutItsGatewayAddress(t *testing.T) {
	t.Parallel()
	n := newNode(t, families[0].env, conflist("1.1.0", ""))
	stop := n.readyz(t, 200, "ready")
	defer stop()
	n.status(t, "there is no bridge yet", 0, "")
	a := n.pod(t, "a")
	n.add(t, a)
	n.status(t, "the bridge is whole", 0, "")
	for _, setting := range []string{"1", "0"} {
		if err := n.Run("sysctl", "-qw", "net.ipv6.conf.cni0.disable_ipv6="+setting); err != nil {
			t.Fatal(err)
		}
	}
	const text = "bridge cni0 has no address in the node's IPv6 subnet"
	n.status(t, "the IPv6 address is gone", types.ErrLimitedConnectivity, text)
	err := n.cni.CheckNetworkList(t.Context(), n.list, a)
	if r, ok := errors.AsType[*refusal](err); !ok || !strings.Contains(r.text, text) {
		t.Errorf("CHECK says %v, want %q", err, text)
	}
	n.ip(t, "address add fd44:0:0:3::1/64 dev cni0")
	n.status(t, "the address is back", 0, "")
}

// subnet.env is in /run, which a reboot empties: the runtime's GC comes before the daemon has
// written it again.
func TestGCWithoutSubnetEnvFreesEverything(t *testing.T) {
	t.Parallel()
	n := newNode(t, families[0].env, conflist("1.1.0", ""))
	n.add(t, n.pod(t, "recorded"))
	n.add(t, n.pod(t, "lost"))
	for _, file := range []string{"/var/lib/cni/loden/lodentest/lost@eth0", "/run/flannel/subnet.env"} {
		if err := os.Remove(n.Path(file)); err != nil {
			t.Fatal(err)
		}
	}
	n.forget(t)
	if err := n.cni.GCNetworkList(t.Context(), n.list, &libcni.GCArgs{}); err != nil {
		t.Fatal(err)
	}
	if left := n.files(t, "/var/lib/cni"); len(left) > 0 {
		t.Errorf("left in /var/lib/cni: %v", left)
	}
}
