package network_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/loden-net/loden/config"
	"github.com/loden-net/loden/config/diff"
	"github.com/loden-net/loden/config/opt"
	"github.com/loden-net/loden/network"
	"github.com/loden-net/loden/test/sandbox/sandboxtest"
)

// pods makes veth pairs as a container runtime does: an end for the pod, the other end on a bridge. They are gone at the end of the test.
func pods(t *testing.T, first, last int) {
	t.Helper()
	var batch strings.Builder
	for i := first; i <= last; i++ {
		fmt.Fprintf(&batch, "link add pod%d type veth peer name pod%dp\nlink set pod%dp up\nlink set pod%d master cni9 up\n", i, i, i, i)
	}
	sh(t, "ip link show cni9 >/dev/null 2>&1 || ip link add cni9 type bridge; ip link set cni9 up; ip -batch - <<'EOF'\n"+batch.String()+"EOF")
	t.Cleanup(func() {
		var batch strings.Builder
		for i := first; i <= last; i++ {
			fmt.Fprintf(&batch, "link del pod%d\n", i)
		}
		sh(t, "ip -batch - <<'EOF'\n"+batch.String()+"EOF")
	})
}

func TestObservingAsksForOneListOfEachKindHoweverManyLinksThereAre(t *testing.T) {
	tunnel(t)
	const want = 1 + 1 + 2 // links, addresses, routes of each family
	allocations := func() float64 {
		return testing.AllocsPerRun(3, func() {
			if _, err := network.ReadInventory("tun9", opt.None[netip.Addr]()); err != nil {
				t.Fatal(err)
			}
		})
	}
	pods(t, 1, 40)
	few := allocations()
	pods(t, 41, 160)
	many := allocations()
	if got, err := network.CountDumps("tun9"); err != nil || got != want {
		t.Errorf("got %d lists, want %d (%v)", got, want, err)
	}
	// Four times the links: four times the work, and 16 times when it grew with the square.
	if ratio := many / few; ratio > 5 {
		t.Errorf("%.0f allocations for 160 pods, %.0f for 40: %.1f times", many, few, ratio)
	}
}

func TestRoutesPartUsesTheListsOfTheSamePassUntilTheHostIsChanged(t *testing.T) {
	tunnel(t)
	o := network.NewObserver("tun9", config.UplinkChoice{Ifaces: []string{"tun9p"}})
	sh(t, "ip addr add 192.0.2.9/24 dev tun9p; ip route add 10.244.0.0/16 dev tun9 proto 76 metric 1024")
	for _, tt := range []struct {
		name   string
		expire bool
		want   int
	}{
		{"the host is as observed", false, 1},
		{"a change was made since", true, 0},
	} {
		sh(t, "ip route replace 10.244.0.0/16 dev tun9 proto 76 metric 1024")
		if _, err := o.Observe(network.Inputs{}); err != nil {
			t.Fatal(err)
		}
		sh(t, "ip route del 10.244.0.0/16 proto 76")
		if tt.expire {
			o.Expire()
		}
		if got, err := network.OwnRoutes(o); err != nil || got != tt.want {
			t.Errorf("%s: got %d routes, want %d (%v)", tt.name, got, tt.want, err)
		}
		if got, err := network.OwnRoutes(o); err != nil || got != 0 {
			t.Errorf("%s, asked again: got %d routes, want what the kernel has now (%v)", tt.name, got, err)
		}
	}
}

// watched counts the calls of a watch on this namespace until the test ends. The watch has
// begun when watched returns.
func watched(t *testing.T, o *network.Observer) *atomic.Int64 {
	t.Helper()
	var calls atomic.Int64
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- o.Watch(ctx, func() { calls.Add(1) }) }()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	fence(t, &calls, "the beginning")
	return &calls
}

// fence makes changes that matter until the watch has called, and returns after a time
// without calls: everything that was announced before is then judged.
func fence(t *testing.T, calls *atomic.Int64, name string) {
	t.Helper()
	before := calls.Load()
	sandboxtest.Until(t, 30*time.Second, name, func() error {
		sh(t, "ip addr replace 192.0.2.251/32 dev tun9p; ip addr del 192.0.2.251/32 dev tun9p")
		if calls.Load() == before {
			return errors.New("no call yet")
		}
		return nil
	})
	settled(t, calls)
}

// settled waits until no call came for a while, and returns the number of calls.
func settled(t *testing.T, calls *atomic.Int64) int64 {
	t.Helper()
	last, since := calls.Load(), time.Now()
	sandboxtest.Until(t, 30*time.Second, "quiet", func() error {
		if now := calls.Load(); now != last {
			last, since = now, time.Now()
		}
		if time.Since(since) < 100*time.Millisecond {
			return errors.New("still busy")
		}
		return nil
	})
	return last
}

func TestPodsThatComeAndGoCauseNoPass(t *testing.T) {
	tunnel(t)
	in := inputs(t, dualDocument, 1)
	sh(t, "ip addr add 192.0.2.3/24 dev tun9p; ip link add cni9 type bridge; ip link set cni9 up; ip addr add 10.244.1.1/24 dev cni9")
	t.Cleanup(func() { sh(t, "ip link del cni9") })
	o := network.NewObserver("tun9", config.UplinkChoice{Ifaces: []string{"tun9p"}})
	if _, err := o.Observe(in); err != nil {
		t.Fatal(err)
	}
	calls := watched(t, o)
	before := calls.Load()
	pods(t, 1, 20)
	sh(t, "ip route add 10.244.1.7/32 dev pod7; ip addr add 10.244.1.1/32 dev pod8; ip -6 addr add fe80::77/64 dev pod9; "+
		"ip link set pod7p down; ip link set pod7 mtu 1400; ip addr del 10.244.1.1/32 dev pod8; ip route del 10.244.1.7/32")
	if got := settled(t, calls) - before; got != 0 {
		t.Errorf("%d calls for 20 pods, want none", got)
	}
	fence(t, calls, "an address of the uplink, after the pods")
}

func TestWatchCallsForEachChangeThatAPassActsOn(t *testing.T) {
	in := inputs(t, dualDocument, 1)
	for _, tt := range []struct{ name, before, event string }{
		{"a route of ours went", "ip route add 10.244.0.0/16 dev tun9 proto 76 metric 1024", "ip route del 10.244.0.0/16 proto 76"},
		{"another program took our route over", "ip route add 10.244.0.0/16 dev tun9 proto 76 metric 1024", "ip route replace 10.244.0.0/16 dev tun9p metric 1024"},
		{"a foreign route into the overlay", "true", "ip route add 10.244.9.0/24 dev tun9p"},
		{"such a route went", "ip route add 10.244.9.0/24 dev tun9p", "ip route del 10.244.9.0/24"},
		{"an address of an uplink came", "true", "ip addr add 192.0.2.77/32 dev tun9p"},
		{"an address of an uplink went", "ip addr add 192.0.2.77/32 dev tun9p", "ip addr del 192.0.2.77/32 dev tun9p"},
		{"an address was deprecated", "ip addr add 2001:db8::7/64 dev tun9p nodad", "ip addr change 2001:db8::7/64 dev tun9p preferred_lft 0"},
		{"an uplink's MTU", "true", "ip link set tun9p mtu 1400"},
		{"an uplink went down", "true", "ip link set tun9p down"},
		{"a new bridge", "true", "ip link add br9 type bridge"},
		{"a default route", "true", "ip route add default dev tun9p"},
		{"a default route went", "ip route add default dev tun9p", "ip route del default dev tun9p"},
		{"IPv4 forwarding was switched off", "sysctl -qw net.ipv4.ip_forward=1", "sysctl -qw net.ipv4.ip_forward=0"},
		{"IPv6 forwarding was switched off", "sysctl -qw net.ipv6.conf.all.forwarding=1", "sysctl -qw net.ipv6.conf.all.forwarding=0"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tunnel(t)
			t.Cleanup(func() { sh(t, "ip link del br9 2>/dev/null; true") })
			sh(t, "ip addr add 192.0.2.3/24 dev tun9p; "+tt.before)
			o := network.NewObserver("tun9", config.UplinkChoice{Ifaces: []string{"tun9p"}})
			if _, err := o.Observe(in); err != nil {
				t.Fatal(err)
			}
			calls := watched(t, o)
			before := calls.Load()
			sh(t, tt.event)
			sandboxtest.Until(t, 10*time.Second, "a call because "+tt.name, func() error {
				if calls.Load() == before {
					return errors.New("no call yet")
				}
				return nil
			})
		})
	}
}

func TestBridgeOfThePodsGetsItsGatewayAddressesBack(t *testing.T) {
	tunnel(t)
	gateways := opt.Dual[netip.Prefix]{
		V4: opt.Some(netip.MustParsePrefix("10.244.1.1/24")), V6: opt.Some(netip.MustParsePrefix("fd44:0:0:1::1/64")),
	}
	want := func() ([]diff.Change, error) { return network.GatewayChanges("tun9", gateways) }
	for _, tt := range []struct{ name, lost, changes string }{
		{"there", "true", ""},
		{"the bridge went down for a moment", "ip link set cni0 down; ip link set cni0 up", "fd44:0:0:1::1/64"},
		{"IPv6 was off for a moment", "sysctl -qw net.ipv6.conf.cni0.disable_ipv6=1; sysctl -qw net.ipv6.conf.cni0.disable_ipv6=0", "fd44:0:0:1::1/64"},
		{"IPv4 was taken away", "ip addr del 10.244.1.1/24 dev cni0", "10.244.1.1/24"},
		{"both were", "ip addr flush dev cni0 scope global", "10.244.1.1/24 fd44:0:0:1::1/64"},
		{"an address of another network", "ip addr flush dev cni0 scope global; ip addr add 10.7.7.1/24 dev cni0; ip addr add fd07::1/64 dev cni0", ""},
		{"the bridge is down", "ip link set cni0 down", ""},
		{"another bridge, without a gateway address",
			"ip addr flush dev cni0 scope global; ip link set cni0 down; ip link set cni0 name br7; ip link set br7 up", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			sh(t, "ip link add cni0 type bridge; ip link set tun9p master cni0; ip link set cni0 up; ip addr add 10.244.1.1/24 dev cni0; ip addr add fd44:0:0:1::1/64 dev cni0 nodad")
			t.Cleanup(func() { sh(t, "ip link del cni0 2>/dev/null || ip link del br7") })
			sh(t, tt.lost)
			var got []string
			for _, c := range settle(t, want) {
				got = append(got, strings.Fields(c.Object)[2])
			}
			if strings.Join(got, " ") != tt.changes {
				t.Errorf("added %q, want %q", got, tt.changes)
			}
		})
	}
}
