package system_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/loden-net/loden/config/opt"
	"github.com/loden-net/loden/test/lab"
	"github.com/loden-net/loden/test/sandbox/sandboxtest"
)

// storeLab makes a lab whose etcd holds the network document, with no daemon running.
func storeLab(t *testing.T, o lab.Options) *lab.Lab {
	t.Helper()
	l := newLab(t, o)
	if err := l.Store.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := l.Put(lab.Document(l.Families)); err != nil {
		t.Fatal(err)
	}
	return l
}

// startAndWait starts the daemon and waits until it is ready.
func startAndWait(t *testing.T, n *lab.Node, flags ...string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), standLimit)
	defer cancel()
	if err := n.Start(flags...); err != nil {
		t.Fatal(err)
	}
	if err := n.Serving(ctx); err != nil {
		t.Fatal(err)
	}
}

// rules returns the node's IPv4 or IPv6 packet rules of every kind.
func rules(t *testing.T, n *lab.Node, f opt.Family) string {
	t.Helper()
	command := "iptables-save; iptables-legacy-save; nft list tables | grep -v ip6"
	if f == opt.V6 {
		command = "ip6tables-save; ip6tables-legacy-save"
	}
	text, err := n.Output("sh", "-c", "("+command+") 2>/dev/null; true")
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// TestFirstStartNeedsNothingOfSubnetEnv is flannel's crash (its issue 1968) and its
// relatives: IPv6 on, and a subnet.env that is missing or of no use.
func TestFirstStartNeedsNothingOfSubnetEnv(t *testing.T) {
	whole := "FLANNEL_NETWORK=10.99.0.0/16\nFLANNEL_SUBNET=10.99.7.1/24\n" +
		"FLANNEL_IPV6_NETWORK=fd99::/48\nFLANNEL_IPV6_SUBNET=fd99:0:0:7::1/64\nFLANNEL_MTU=1420\nFLANNEL_IPMASQ=true\n"
	for name, before := range map[string]string{
		"absent":             "",
		"empty":              "\n",
		"truncated":          whole[:len(whole)/2+3],
		"garbled":            "FLANNEL_NETWORK=10.999.0.0/99\x00\nFLANNEL_IPV6_NETWORK\n\xff\xfe=1\nFLANNEL_MTU=many\n",
		"of another network": whole,
		"IPv4 only":          "FLANNEL_NETWORK=10.244.0.0/16\nFLANNEL_SUBNET=10.244.9.1/24\nFLANNEL_MTU=1420\nFLANNEL_IPMASQ=true\n",
	} {
		t.Run(name, func(t *testing.T) {
			l := storeLab(t, lab.Options{Nodes: 1})
			n := l.Nodes[0]
			if before != "" {
				file := n.Path("/run/flannel/subnet.env")
				if err := os.WriteFile(file, []byte(strings.TrimPrefix(before, "\n")), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			startAndWait(t, n)
			if log := n.Daemon().Log(); strings.Contains(log, "panic") || strings.Contains(log, "goroutine ") {
				t.Errorf("daemon crashed:\n%s", log)
			}
			env, err := n.Env()
			if err != nil || env.Networks.V4.String() != "10.244.0.0/16" || env.Networks.V6.String() != "fd10:244::/48" {
				t.Errorf("subnet.env afterwards: %+v, %v", env, err)
			}
			exits(t, l, n)
		})
	}
}

// exits attaches a pod and asks the outside for the pod's address, in every family.
func exits(t *testing.T, l *lab.Lab, n *lab.Node) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), standLimit)
	defer cancel()
	pod, err := n.Attach(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for f := range pod.Addrs.All() {
		want, _ := n.Internet.Of(f).Get()
		if seen, _, err := l.SeenAs(ctx, pod, f); err != nil || seen != want {
			t.Errorf("%s: outside saw %v (%v), want the node's %v", f, seen, err, want)
		}
	}
}

// TestSwitchingIPv6OffRemovesItsRules starts a dual-stack node again with a network that
// has IPv4 only: the IPv6 parts must go, without a `down` in between.
func TestSwitchingIPv6OffRemovesItsRules(t *testing.T) {
	l := storeLab(t, lab.Options{Nodes: 1})
	n := l.Nodes[0]
	before := rules(t, n, opt.V6)
	startAndWait(t, n)
	if during := rules(t, n, opt.V6); during == before && !hasTable(t, n) {
		t.Fatal("dual-stack node has no IPv6 rules: the test would prove nothing")
	}
	if err := n.Stop(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := l.Put(lab.Document(lab.IPv4), "--force"); err != nil {
		t.Fatal(err)
	}
	startAndWait(t, n)
	// The node may be ready with the document on its disk before it reads the new one.
	sandboxtest.Until(t, standLimit, "subnet.env to have IPv4 only", func() error {
		if env, err := n.Env(); err != nil || env.Subnets.V6.Present() {
			return fmt.Errorf("subnet.env: %+v, %v", env, err)
		}
		return nil
	})
	for _, line := range strings.Split(rules(t, n, opt.V6), "\n") {
		if strings.Contains(line, "fd10:244:") || strings.Contains(strings.ToUpper(line), "LODEN") {
			t.Errorf("IPv6 rule left behind: %s", line)
		}
	}
	if out, _ := n.Output("sh", "-c", "nft list ruleset 2>/dev/null; ip -6 route show table all; ip -6 addr show loden0"); strings.Contains(out, "fd10:244:") {
		t.Errorf("IPv6 overlay left behind:\n%s", out)
	}
	env, err := n.Env()
	if err != nil || env.Subnets.V6.Present() || !env.Subnets.V4.Present() {
		t.Errorf("subnet.env afterwards: %+v, %v", env, err)
	}
	exits(t, l, n)
}

// hasTable reports whether the rules are in a table of nftables proper.
func hasTable(t *testing.T, n *lab.Node) bool {
	t.Helper()
	out, err := n.Output("sh", "-c", "nft list tables 2>/dev/null; true")
	return err == nil && strings.Contains(out, "loden")
}

// TestDownLeavesHostAsFound compares everything a namespace holds before `loden run` and
// after `loden down`, with rules, routes and settings of others in it.
func TestDownLeavesHostAsFound(t *testing.T) {
	for _, firewall := range []string{"iptables", "nftables"} {
		t.Run(firewall, func(t *testing.T) {
			l := storeLab(t, lab.Options{Nodes: 2, Flags: []string{"--firewall", firewall}})
			n := l.Nodes[0]
			for _, command := range []string{
				"iptables -t nat -A POSTROUTING -s 192.0.2.0/24 -j MASQUERADE",
				"ip6tables -A FORWARD -s 2001:db8:77::/64 -j DROP",
				"nft add table inet others; nft add chain inet others c",
				"ip route add 192.0.2.0/24 dev eth1; ip rule add from 192.0.2.9 lookup 77; ip route add 203.0.113.0/24 dev eth1 table 77",
				"ip -6 route add 2001:db8:77::/64 dev eth1",
				"ip link add others type bridge",
			} {
				if err := n.Run("sh", "-ec", command); err != nil {
					t.Fatal(err)
				}
			}
			settle(t, n)
			before := lab.Snapshot(n.Host)
			startAndWait(t, n)
			startAndWait(t, l.Nodes[1])
			noChange(t, n)
			during := lab.Snapshot(n.Host)
			if len(lab.Differences(before, during)) < 5 {
				t.Fatalf("snapshot does not see the daemon's work: %q", lab.Differences(before, during))
			}
			if err := n.Stop(syscall.SIGTERM); err != nil {
				t.Fatal(err)
			}
			for _, d := range lab.Differences(during, lab.Snapshot(n.Host)) {
				t.Errorf("changed by the daemon's end: %s", d)
			}
			down(t, n)
			for _, d := range lab.Differences(before, lab.Snapshot(n.Host)) {
				t.Errorf("not as found: %s", d)
			}
			noEngine(t, n)
		})
	}
}

// settle waits until the kernel has decided on the node's own link-local addresses.
func settle(t *testing.T, n *lab.Node) {
	t.Helper()
	sandboxtest.Until(t, standLimit, "link-local addresses", func() error {
		if out, err := n.Output("ip", "-6", "addr", "show", "tentative"); err != nil || strings.Contains(out, "fe80") {
			return fmt.Errorf("%v %s", err, out)
		}
		return nil
	})
}

// noChange waits until a ready node has no change left. more are
// further flags that its daemon was started with.
func noChange(t *testing.T, n *lab.Node, more ...string) {
	t.Helper()
	out, err := n.Loden(slices.Concat([]string{"plan"}, n.Flags(), more)...)
	if err != nil || strings.TrimSpace(out) != "no change" {
		t.Errorf("loden plan on running %s: %v\n%s", n.Name, err, out)
	}
}

// down runs `loden down` and wants it to work.
func down(t *testing.T, n *lab.Node) {
	t.Helper()
	if out, err := n.Loden(append([]string{"down"}, n.Flags()...)...); err != nil {
		t.Errorf("loden down: %v\n%s", err, out)
	}
}

// noEngine wants no process on the node: the userspace engine ends with `down`.
func noEngine(t *testing.T, n *lab.Node) {
	t.Helper()
	pids, err := n.PIDs()
	if err != nil || len(pids) > 0 {
		for _, pid := range pids {
			line, _ := os.ReadFile(filepath.Join("/proc", pid, "cmdline"))
			t.Errorf("still runs: %s", strings.ReplaceAll(string(line), "\x00", " "))
		}
		t.Errorf("processes left: %v, %v", pids, err)
	}
}
