package system_test

import (
	"syscall"
	"testing"

	"github.com/loden-net/loden/test/lab"
)

// TestTwentyRestartsLoseNoPacket ends and starts the daemon of both nodes, ten times by
// SIGTERM and ten times by SIGKILL, under 1,000 packets a second in each direction, in
// IPv4 and in IPv6.
func TestTwentyRestartsLoseNoPacket(t *testing.T) {
	l := upLab(t, lab.Options{Nodes: 2, Pods: 1, Engines: []string{"wireguard-go", "loden"}})
	a, b := l.Nodes[0], l.Nodes[1]
	for _, n := range l.Nodes {
		if err := n.Serving(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	verdict(t, l)
	end := traffic(t, a.Pods[0], b.Pods[0])
	for i := range 20 {
		restart(t, l.Nodes[i%2], []syscall.Signal{syscall.SIGTERM, syscall.SIGKILL}[i/2%2])
	}
	nothingLost(t, end())
	for _, n := range l.Nodes {
		noChange(t, n)
	}
	verdict(t, l)
}

// restart ends a node's daemon by a signal and starts it again, until it is ready.
func restart(t *testing.T, n *lab.Node, sig syscall.Signal) {
	t.Helper()
	if err := n.Stop(sig); err != nil {
		t.Fatal(err)
	}
	if code := n.Daemon().ExitCode(); sig == syscall.SIGTERM && code != 0 {
		t.Errorf("%s ended with status %d after SIGTERM", n.Name, code)
	}
	startAndWait(t, n)
}
