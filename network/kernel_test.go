package network_test

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/loden-net/loden/config"
	"github.com/loden-net/loden/config/diff"
	"github.com/loden-net/loden/config/opt"
	"github.com/loden-net/loden/network"
	"github.com/loden-net/loden/test/sandbox/sandboxtest"
)

// The tests here change this process's own network namespace, which is a sandbox's.
func TestMain(m *testing.M) { sandboxtest.Main(m) }

// sh runs a command line in the sandbox and returns its output.
func sh(t failer, line string) string {
	t.Helper()
	out, err := exec.Command("sh", "-c", line).CombinedOutput()
	if err != nil {
		t.Fatal(line, err, string(out))
	}
	return string(out)
}

// settle runs the changes and fails unless a second look finds no change.
func settle(t failer, list func() ([]diff.Change, error)) []diff.Change {
	t.Helper()
	changes, err := list()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range changes {
		if err := c.Run(context.Background()); err != nil {
			t.Fatal(c, err)
		}
	}
	again, err := list()
	if err != nil || len(again) != 0 {
		t.Fatal("a second look still wants ", again, err)
	}
	return changes
}

func tunnel(t *testing.T) {
	t.Helper()
	// No link-local addresses: the kernel then announces the changes of the test alone.
	sh(t, "ip link add tun9 type veth peer name tun9p && sysctl -qw net.ipv6.conf.tun9.addr_gen_mode=1 net.ipv6.conf.tun9p.addr_gen_mode=1 && "+
		"ip link set tun9 up && ip link set tun9p up")
	t.Cleanup(func() { sh(t, "ip link del tun9 2>/dev/null; true") })
}

func route(dst string, tunnel bool) network.Route {
	return network.Route{Dst: netip.MustParsePrefix(dst), Tunnel: tunnel}
}

func TestRoutesComeStayAndGo(t *testing.T) {
	tunnel(t)
	all := []network.Route{route("10.244.0.0/16", false), route("10.244.0.0/16", true), route("fd44::/48", false), route("fd44::/48", true)}
	want := func(r []network.Route) func() ([]diff.Change, error) {
		return func() ([]diff.Change, error) { return network.RouteChanges(t.Context(), "tun9", r) }
	}
	settle(t, want(all))
	if got := sh(t, "ip route get 10.244.7.7; ip -6 route get fd44::7"); strings.Count(got, "dev tun9") != 2 {
		t.Errorf("not through the tunnel:\n%s", got)
	}
	sh(t, "ip link del tun9")
	if out, err := exec.Command("ip", "route", "get", "10.244.7.7").CombinedOutput(); err == nil {
		t.Errorf("without the tunnel IPv4 goes %s", out)
	}
	if out, err := exec.Command("ip", "-6", "route", "get", "fd44::7").CombinedOutput(); err == nil && !strings.Contains(string(out), "unreachable") {
		t.Errorf("without the tunnel IPv6 goes %s", out)
	}
	tunnel2 := "ip link add tun9 type veth peer name tun9p && ip link set tun9 up"
	sh(t, tunnel2)
	settle(t, want(all))
	settle(t, want(nil))
	if got := sh(t, "ip route show proto 76; ip -6 route show proto 76"); got != "" {
		t.Errorf("left behind:\n%s", got)
	}
}

// R16, flannel commit 4268a0cd: the unreachable route under the tunnel's is added when it is
// absent and is no error when it is there, whoever made it.
func TestR16UnreachableRouteIsAddedOnceAndTakenAsItIs(t *testing.T) {
	tunnel(t)
	want := func() ([]diff.Change, error) {
		return network.RouteChanges(t.Context(), "tun9", []network.Route{route("10.244.0.0/16", false), route("fd44::/48", false)})
	}
	if changes := settle(t, want); len(changes) != 2 {
		t.Errorf("absent: got %v", changes)
	}
	sh(t, "ip route del unreachable 10.244.0.0/16; ip route add unreachable 10.244.0.0/16 metric 4294967294; ip -6 route del unreachable fd44::/48 proto 76")
	if changes := settle(t, want); len(changes) != 2 {
		t.Errorf("another's in its place, and gone: got %v", changes)
	}
	if changes := settle(t, want); len(changes) != 0 {
		t.Errorf("there: got %v", changes)
	}
	settle(t, func() ([]diff.Change, error) { return network.RouteChanges(t.Context(), "tun9", nil) })
}

func TestForeignRoutesAreLeftAlone(t *testing.T) {
	tunnel(t)
	sh(t, "ip route add 10.99.0.0/16 dev tun9; ip route add unreachable 10.98.0.0/16; ip -6 route add fd99::/48 dev tun9")
	t.Cleanup(func() { sh(t, "ip route del unreachable 10.98.0.0/16") })
	before := sh(t, "ip route; ip -6 route")
	settle(t, func() ([]diff.Change, error) {
		return network.RouteChanges(t.Context(), "tun9", []network.Route{route("10.244.0.0/16", true)})
	})
	settle(t, func() ([]diff.Change, error) { return network.RouteChanges(t.Context(), "tun9", nil) })
	if after := sh(t, "ip route; ip -6 route"); after != before {
		t.Errorf("before:\n%s\nafter:\n%s", before, after)
	}
}

// R27, flannel issue 1963: a route that stands in our route's place ("route already
// exists") is taken over, not stumbled upon.
func TestR27RouteInPlaceIsTakenOver(t *testing.T) {
	tunnel(t)
	sh(t, "ip route add 10.244.0.0/16 dev tun9 metric 1024")
	settle(t, func() ([]diff.Change, error) {
		return network.RouteChanges(t.Context(), "tun9", []network.Route{route("10.244.0.0/16", true)})
	})
	settle(t, func() ([]diff.Change, error) { return network.RouteChanges(t.Context(), "tun9", nil) })
}

// Any set of routes can follow any other, from any state of the kernel.
func TestRoutesWalkBetweenAnySets(t *testing.T) {
	tunnel(t)
	pool := []network.Route{
		route("10.244.0.0/16", false), route("10.244.0.0/16", true), route("10.245.0.0/16", true),
		route("fd44::/48", false), route("fd44::/48", true), route("fd45::/48", true),
	}
	rapid.Check(t, func(rt *rapid.T) {
		for range 3 {
			want := rapid.SliceOfDistinct(rapid.SampledFrom(pool), rapid.ID[network.Route]).Draw(rt, "want")
			settle(rt, func() ([]diff.Change, error) { return network.RouteChanges(context.Background(), "tun9", want) })
			got := strings.Fields(sh(rt, "(ip route show proto 76; ip -6 route show proto 76) | wc -l"))
			if got[0] != fmt.Sprint(len(want)) {
				rt.Fatalf("the kernel has %s routes, want %v", got[0], want)
			}
		}
	})
	settle(t, func() ([]diff.Change, error) { return network.RouteChanges(t.Context(), "tun9", nil) })
}

// Two networks on a host, each with a daemon and a tunnel of its own, and with both ends of
// a veth pair as the tunnels.
func TestDaemonsOfTwoNetworksLeaveEachOthersRoutesAndSettingsAlone(t *testing.T) {
	for _, names := range [][2]string{{"tun9", "tun9p"}, {"loden0", "tun9p"}} {
		t.Run(names[0], func(t *testing.T) {
			tunnel(t)
			if names[0] != "tun9" {
				sh(t, "ip link set tun9 down; ip link set tun9 name "+names[0]+"; ip link set "+names[0]+" up")
				t.Cleanup(func() { sh(t, "ip link del "+names[0]) })
			}
			sh(t, "sysctl -qw net.ipv4.ip_forward=0")
			dir := t.TempDir()
			nets := [2][]network.Route{
				{route("10.244.0.0/16", false), route("10.244.0.0/16", true), route("fd44::/48", false), route("fd44::/48", true)},
				{route("10.99.0.0/16", false), route("10.99.0.0/16", true), route("fd99::/48", false), route("fd99::/48", true)},
			}
			apply := func(i int, up bool) []diff.Change {
				t.Helper()
				return settle(t, func() ([]diff.Change, error) {
					return network.NetworkChanges(t.Context(), names[i], filepath.Join(dir, names[i]), nets[i], up)
				})
			}
			apply(0, true)
			apply(1, true)
			if got := apply(0, true); len(got) != 0 {
				t.Errorf("the second network made the first want %v", got)
			}
			apply(1, false)
			if got := apply(0, true); len(got) != 0 {
				t.Errorf("the second network took from the first: %v", got)
			}
			if got := sh(t, "ip route show proto 76; ip -6 route show proto 76"); strings.Count(got, "10.99.")+strings.Count(got, "fd99:") != 0 {
				t.Errorf("the second network left behind:\n%s", got)
			}
			apply(1, true)
			apply(0, false)
			if got := apply(1, true); len(got) != 0 {
				t.Errorf("the first network took from the second: %v", got)
			}
			apply(1, false)
			if got := sh(t, "ip route show proto 76; ip -6 route show proto 76"); got != "" {
				t.Errorf("left behind:\n%s", got)
			}
		})
	}
}

// A version that knew one network on each host gave all unreachable routes the same metric.
func TestUnreachableRouteOfAnOlderVersionIsReplaced(t *testing.T) {
	tunnel(t)
	sh(t, "ip route add unreachable 10.244.0.0/16 proto 76 metric 4294967294; ip route add unreachable 10.99.0.0/16 proto 76 metric 4294967294")
	settle(t, func() ([]diff.Change, error) {
		return network.RouteChanges(t.Context(), "tun9", []network.Route{route("10.244.0.0/16", false)})
	})
	settle(t, func() ([]diff.Change, error) { return network.RouteChanges(t.Context(), "tun9", nil) })
	if got := sh(t, "ip route show proto 76"); strings.Contains(got, "10.244.") || !strings.Contains(got, "10.99.") {
		t.Errorf("left:\n%s", got)
	}
	sh(t, "ip route del unreachable 10.99.0.0/16 proto 76")
}

func TestOriginalSettingsOfAnotherBootAreNotRestored(t *testing.T) {
	before := filepath.Join(t.TempDir(), "found.json")
	sh(t, "sysctl -qw net.ipv4.ip_forward=1")
	old := `{"kernel/random/boot_id":{"Was":"another boot","Set":""},"net/ipv4/ip_forward":{"Was":"0","Set":"1"}}`
	if err := os.WriteFile(before, []byte(old), 0o600); err != nil {
		t.Fatal(err)
	}
	if changes, err := network.SysctlChanges(t.Context(), before, nil); err != nil || len(changes) != 0 {
		t.Errorf("got %v, %v", changes, err)
	}
}

func TestSysctlsGoBackToWhatWasFound(t *testing.T) {
	before := filepath.Join(t.TempDir(), "found.json")
	sh(t, "sysctl -qw net.ipv4.ip_forward=0")
	want := func(s ...network.Sysctl) func() ([]diff.Change, error) {
		return func() ([]diff.Change, error) { return network.SysctlChanges(t.Context(), before, s) }
	}
	forward := network.Sysctl{Path: "net/ipv4/ip_forward", Value: "1"}
	settle(t, want(forward))
	if got := strings.TrimSpace(sh(t, "sysctl -n net.ipv4.ip_forward")); got != "1" {
		t.Fatalf("got %s", got)
	}
	sh(t, "sysctl -qw net.ipv4.ip_forward=0") // somebody meddles
	if changes := settle(t, want(forward)); len(changes) != 1 {
		t.Errorf("not set again: %v", changes)
	}
	settle(t, want())
	if got := strings.TrimSpace(sh(t, "sysctl -n net.ipv4.ip_forward")); got != "0" {
		t.Errorf("after: got %s", got)
	}
	if _, err := os.Stat(before); !os.IsNotExist(err) {
		t.Errorf("the file of values found stays: %v", err)
	}
}

// A router that is silent for a while loses its route, and with the original accept_ra the
// kernel would not hear it again while it forwards.
func TestAcceptRAStaysWhileForwardingIsOurs(t *testing.T) {
	tunnel(t)
	before := filepath.Join(t.TempDir(), "found.json")
	sh(t, "sysctl -qw net.ipv6.conf.all.forwarding=0 net.ipv6.conf.tun9p.accept_ra=1")
	want := func(s ...network.Sysctl) func() ([]diff.Change, error) {
		return func() ([]diff.Change, error) { return network.SysctlChanges(t.Context(), before, s) }
	}
	forward := network.Sysctl{Path: "net/ipv6/conf/all/forwarding", Value: "1"}
	for _, tt := range []struct {
		name string
		want func() ([]diff.Change, error)
		ra   string
	}{
		{"the router speaks", want(network.Sysctl{Path: "net/ipv6/conf/tun9p/accept_ra", Value: "2"}, forward), "2"},
		{"the router is silent", want(forward), "2"},
		{"teardown", want(), "1"},
	} {
		settle(t, tt.want)
		if got := strings.TrimSpace(sh(t, "sysctl -n net.ipv6.conf.tun9p.accept_ra")); got != tt.ra {
			t.Errorf("%s: accept_ra is %s, want %s", tt.name, got, tt.ra)
		}
	}
}

func TestSettingThatCannotBeReadDoesNotKeepTheOthersFromTheirs(t *testing.T) {
	before := filepath.Join(t.TempDir(), "found.json")
	sh(t, "sysctl -qw net.ipv4.ip_forward=0")
	changes, err := network.SysctlChanges(t.Context(), before, []network.Sysctl{
		{Path: "net/ipv6/conf/nosuch/accept_ra", Value: "2"}, {Path: "net/ipv4/ip_forward", Value: "1"},
	})
	if err == nil || len(changes) != 1 || !strings.Contains(changes[0].Object, "net.ipv4.ip_forward") {
		t.Errorf("got %v, %v", changes, err)
	}
}

func TestSysctlOfOthersIsNotTakenBack(t *testing.T) {
	before := filepath.Join(t.TempDir(), "found.json")
	sh(t, "sysctl -qw net.ipv4.ip_forward=1")
	settle(t, func() ([]diff.Change, error) {
		return network.SysctlChanges(t.Context(), before, []network.Sysctl{{Path: "net/ipv4/ip_forward", Value: "1"}})
	})
	settle(t, func() ([]diff.Change, error) { return network.SysctlChanges(t.Context(), before, nil) })
	if got := strings.TrimSpace(sh(t, "sysctl -n net.ipv4.ip_forward")); got != "1" {
		t.Errorf("what was 1 before us is %s", got)
	}
}

func TestEnvFileIsExactOrAbsent(t *testing.T) {
	path := filepath.Join(t.TempDir(), "run", "subnet.env")
	env := config.Env{Networks: opt.Dual[netip.Prefix]{V4: opt.Some(netip.MustParsePrefix("10.244.0.0/16"))}, MTU: 1420}
	want := func(o opt.Option[config.Env]) func() ([]diff.Change, error) {
		return func() ([]diff.Change, error) { return network.EnvChanges(t.Context(), path, o) }
	}
	settle(t, want(opt.Some(env)))
	if err := os.WriteFile(path, []byte("rubbish"), 0o644); err != nil {
		t.Fatal(err)
	}
	settle(t, want(opt.Some(env)))
	if got, err := os.ReadFile(path); err != nil || string(got) != string(env.Bytes()) {
		t.Errorf("got %q, %v", got, err)
	}
	settle(t, want(opt.None[config.Env]()))
	if _, err := os.Stat(path); !os.IsNotExist(err) {
		t.Errorf("still there: %v", err)
	}
}

func TestInventoryHoldsAddressesAndDefaultRoutes(t *testing.T) {
	tunnel(t)
	sh(t, "ip addr add 192.0.2.9/24 dev tun9p; ip addr add 2001:db8::9/64 dev tun9p nodad; ip route add default via 192.0.2.1 metric 77; ip -6 route add default via 2001:db8::1")
	view, err := network.ReadInventory("tun9", opt.Some(netip.MustParseAddr("192.0.2.200")))
	if err != nil {
		t.Fatal(err)
	}
	if slices.ContainsFunc(view.Links, func(l network.Link) bool { return l.Name == "tun9" || l.Name == "lo" }) {
		t.Errorf("the tunnel or lo is among %v", view.Links)
	}
	up, err := network.Uplinks(config.UplinkChoice{}, view, opt.Dual[netip.Addr]{})
	if err != nil {
		t.Fatal(err)
	}
	v4, _ := up.V4.Get()
	v6, _ := up.V6.Get()
	if v4.Name != "tun9p" || v4.Address.String() != "192.0.2.9" || v6.Address.String() != "2001:db8::9" {
		t.Errorf("got %+v, %+v", v4, v6)
	}
	if reach, ok := view.Reach.Get(); !ok || reach.Link != "tun9p" {
		t.Errorf("reach: got %v", view.Reach)
	}
}
