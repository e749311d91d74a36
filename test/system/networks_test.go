package system_test

import (
	"fmt"
	"net/netip"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/loden-net/loden/config"
	"github.com/loden-net/loden/config/opt"
	"github.com/loden-net/loden/test/lab"
	"github.com/loden-net/loden/test/sandbox/sandboxtest"
)

// secondNetwork is a network beside the lab's, with a prefix, a port, an interface and
// directories of its own.
type secondNetwork struct {
	lab     *lab.Lab
	daemons map[*lab.Node]*lab.Process
}

const secondEnv = "/run/flannel/second.env"

// document returns the network document. Its port is the other port that the lab expects on
// the wire.
func (s secondNetwork) document() string {
	return fmt.Sprintf(`{"Network":"10.99.0.0/16","EnableIPv6":true,"IPv6Network":"fd99::/48","Backend":{"Type":"wireguard","ListenPort":%d}}`, lab.MovedPort)
}

func (s secondNetwork) flags(n *lab.Node) []string {
	return []string{
		"--etcd-endpoints", s.lab.Store.Endpoint(), "--etcd-prefix", "/second", "--node-name", n.Name, "--iface", "eth0", "--ip-masq",
		"--interface", "loden1", "--subnet-file", secondEnv, "--state-dir", "/var/lib/loden/second", "--run-dir", "/run/loden/second",
	}
}

// start starts the daemon of the network on a node and waits until its subnet.env is there.
func (s secondNetwork) start(t *testing.T, n *lab.Node) {
	t.Helper()
	p, err := n.Launch("second", "loden", append([]string{"run"}, s.flags(n)...)...)
	if err != nil {
		t.Fatal(err)
	}
	s.daemons[n] = p
	sandboxtest.Until(t, standLimit, "the second network on "+n.Name, func() error {
		if _, err := os.Stat(n.Path(secondEnv)); err != nil {
			return fmt.Errorf("%w\n%s", err, p.Tail(20))
		}
		return nil
	})
}

// end ends the daemon and removes its network from the node.
func (s secondNetwork) end(t *testing.T, n *lab.Node) {
	t.Helper()
	if err := s.daemons[n].Stop(syscall.SIGTERM, standLimit); err != nil {
		t.Fatal(err)
	}
	if out, err := n.Loden(append([]string{"down"}, s.flags(n)...)...); err != nil {
		t.Errorf("loden down of the second network: %v\n%s", err, out)
	}
}

// member returns the node itself as a member of the network: the addresses of loden1.
func (s secondNetwork) member(t *testing.T, n *lab.Node) *lab.Pod {
	t.Helper()
	data, err := os.ReadFile(n.Path(secondEnv))
	if err != nil {
		t.Fatal(err)
	}
	env, err := config.ParseEnv(data)
	if err != nil {
		t.Fatal(err)
	}
	addrs := opt.Map(env.Subnets, func(_ opt.Family, p netip.Prefix) netip.Addr { return p.Addr() })
	return &lab.Pod{Host: n.Host, Node: n, Addrs: addrs}
}

// TestTwoNetworksOnAHostLeaveEachOtherAlone is fault C5: each daemon took the rules and
// routes of the other for leftovers of its own. Under 1,000 packets a second in each
// direction on the first network the second network comes; then the daemons of the first
// restart under the traffic of both; then the second network goes.
func TestTwoNetworksOnAHostLeaveEachOtherAlone(t *testing.T) {
	l := upLab(t, lab.Options{Nodes: 2, Pods: 1, Engines: []string{"wireguard-go", "loden"}})
	s := secondNetwork{lab: l, daemons: map[*lab.Node]*lab.Process{}}
	if err := l.Store.Run(l.Program("etcdctl"), "--endpoints", l.Store.Endpoint(), "put", "/second/config", s.document()); err != nil {
		t.Fatal(err)
	}
	a, b := l.Nodes[0], l.Nodes[1]
	verdict(t, l)
	first := traffic(t, a.Pods[0], b.Pods[0])
	begun := time.Now()
	for _, n := range l.Nodes {
		s.start(t, n)
		t.Logf("second network on %s after %v", n.Name, time.Since(begun))
	}
	ma, mb := s.member(t, a), s.member(t, b)
	sandboxtest.Until(t, 10*time.Second, "packets in the second network", func() error {
		_, err := lab.Ping(t.Context(), a.Host, mb.Addrs.V4.Or(netip.Addr{}), 56)
		return err
	})
	second := traffic(t, ma, mb)
	for _, n := range l.Nodes {
		restart(t, n, syscall.SIGTERM)
		t.Logf("%s restarted after %v", n.Name, time.Since(begun))
	}
	nothingLost(t, second())
	t.Logf("second network goes after %v", time.Since(begun))
	for _, n := range l.Nodes {
		s.end(t, n)
	}
	t.Logf("it is gone after %v", time.Since(begun))
	nothingLost(t, first())
	for _, n := range l.Nodes {
		noChange(t, n)
		if text := rules(t, n, opt.V4); strings.Contains(text, "loden1") {
			t.Errorf("%s: rules of the second network are left:\n%s", n.Name, text)
		}
	}
	verdict(t, l)
}
