package system_test

import (
	"context"
	"errors"
	"net"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/loden-net/loden/config/opt"
	"github.com/loden-net/loden/test/lab"
	"github.com/loden-net/loden/test/sandbox/sandboxtest"
)

// traffic sends 1,000 packets a second in each direction, in IPv4 and in IPv6, for
// a second or longer. The returned function ends the traffic and returns its account.
func traffic(t *testing.T, a, b *lab.Pod) (end func() []lab.Flow) {
	t.Helper()
	streams := []lab.Stream{
		{From: a, To: b, Family: opt.V4, Rate: 1000, Least: 1000},
		{From: b, To: a, Family: opt.V6, Rate: 1000, Least: 1000},
	}
	ctx, stop := context.WithCancel(t.Context())
	t.Cleanup(stop)
	flows := make([]lab.Flow, len(streams))
	var group errgroup.Group
	for i, s := range streams {
		group.Go(func() (err error) {
			flows[i], err = s.Run(ctx)
			return err
		})
	}
	return func() []lab.Flow {
		t.Helper()
		stop()
		if err := group.Wait(); err != nil {
			t.Fatal(err)
		}
		for i, f := range flows {
			t.Logf("%s %s > %s: sent %d, received %d, doubled %d, longest gap %v",
				streams[i].Family, streams[i].From.Name, streams[i].To.Name, f.Sent, f.Received, f.Doubled, f.Gap)
		}
		return flows
	}
}

// nothingLost fails the test for every packet that did not arrive.
func nothingLost(t *testing.T, flows []lab.Flow) {
	t.Helper()
	for _, f := range flows {
		if f.Received != f.Sent {
			t.Errorf("%d of %d lost, the first are %v", f.Sent-f.Received, f.Sent, f.Lost)
		}
	}
}

// TestDaemonThatStandsByTakesOver runs two `loden run --wait` on a node, as a DaemonSet with
// a surge does, and ends the one at work by SIGTERM and by SIGKILL, under traffic.
func TestDaemonThatStandsByTakesOver(t *testing.T) {
	const address = "127.0.0.1:8081"
	l := upLab(t, lab.Options{Nodes: 2, Pods: 1, Engines: []string{"wireguard-go", "loden"}})
	for _, n := range l.Nodes {
		if err := n.Stop(syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
		startAndWait(t, n, "--wait", "--listen-address", address)
	}
	verdict(t, l)
	end := traffic(t, l.Nodes[0].Pods[0], l.Nodes[1].Pods[0])
	for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGKILL} {
		for _, n := range l.Nodes {
			takeOver(t, n, sig, address)
		}
	}
	nothingLost(t, end())
	for _, n := range l.Nodes {
		noChange(t, n, "--listen-address", address) // which the daemon at work has
	}
	verdict(t, l)
}

// takeOver starts a second daemon, ends the first and waits until the second serves.
func takeOver(t *testing.T, n *lab.Node, sig syscall.Signal, address string) {
	t.Helper()
	const standing = "another loden runs on this node: standing by"
	first := n.Daemon()
	before := strings.Count(first.Log(), standing)
	if err := n.Start("--wait", "--listen-address", address); err != nil {
		t.Fatal(err)
	}
	sandboxtest.Until(t, standLimit, "the second to stand by", func() error {
		if strings.Count(n.Daemon().Log(), standing) == before {
			return errors.New("it does not say so")
		}
		return nil
	})
	readyOverTCP(t, n, address)
	if err := first.Stop(sig, time.Minute); err != nil {
		t.Fatal(err)
	}
	ended := time.Now()
	ctx, cancel := context.WithTimeout(t.Context(), standLimit)
	defer cancel()
	if err := n.Serving(ctx); err != nil {
		t.Fatal(err)
	}
	t.Logf("%s: ready %v after %v of the one before", n.Name, time.Since(ended).Round(time.Millisecond), sig)
	readyOverTCP(t, n, address)
}

// readyOverTCP asks as kubelet does.
func readyOverTCP(t *testing.T, n *lab.Node, address string) {
	t.Helper()
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(_ context.Context, network, _ string) (c net.Conn, err error) {
		err = n.Do(func() (err error) { c, err = net.Dial(network, address); return err })
		return c, err
	}}}
	answer, err := client.Get("http://" + address + "/readyz")
	if err != nil {
		t.Error(err)
		return
	}
	_ = answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		t.Errorf("%s: readyz says %s", n.Name, answer.Status)
	}
}
