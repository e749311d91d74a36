package system_test

import (
	"context"
	"fmt"
	"syscall"
	"testing"

	"golang.org/x/sync/errgroup"

	"github.com/loden-net/loden/cmd/loden-lab/lab"
	"github.com/loden-net/loden/config/opt"
)

// TestTwentyRestartsLoseNoPacket ends and starts the daemon of both nodes, ten times by
// SIGTERM and ten times by SIGKILL, under 1,000 packets a second in each direction, one in
// IPv4 and one in IPv6.
func TestTwentyRestartsLoseNoPacket(t *testing.T) {
	l := upLab(t, lab.Options{Nodes: 2, Pods: 1, Engines: []string{"wireguard-go", "loden"}})
	a, b := l.Nodes[0], l.Nodes[1]
	for _, n := range l.Nodes {
		if err := n.Serving(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	verdict(t, l)
	streams := []lab.Stream{
		{From: a.Pods[0], To: b.Pods[0], Family: opt.V4, Rate: 1000},
		{From: b.Pods[0], To: a.Pods[0], Family: opt.V6, Rate: 1000},
	}
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	flows := make([]lab.Flow, len(streams))
	var group errgroup.Group
	for i, s := range streams {
		group.Go(func() (err error) {
			flows[i], err = s.Run(ctx)
			return err
		})
	}
	for i := range 20 {
		restart(t, l.Nodes[i%2], []syscall.Signal{syscall.SIGTERM, syscall.SIGKILL}[i/2%2])
	}
	stop()
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
	for i, f := range flows {
		s := fmt.Sprintf("%s %s > %s", streams[i].Family, streams[i].From.Name, streams[i].To.Name)
		t.Logf("%s: sent %d, received %d, doubled %d, longest gap %v", s, f.Sent, f.Received, f.Doubled, f.Gap)
		if f.Received != f.Sent || f.Sent < 1000 {
			t.Errorf("%s: %d of %d lost, the first are %v", s, f.Sent-f.Received, f.Sent, f.Lost)
		}
	}
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
