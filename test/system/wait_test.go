package system_test

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/loden-net/loden/test/lab"
	"github.com/loden-net/loden/test/sandbox/sandboxtest"
)

// says waits until the daemon's log has text.
func says(t *testing.T, n *lab.Node, text string) {
	t.Helper()
	sandboxtest.Until(t, standLimit, "the daemon to say "+text, func() error {
		if !strings.Contains(n.Daemon().Log(), text) {
			return fmt.Errorf("it said:\n%s", n.Daemon().Tail(20))
		}
		return nil
	})
}

// TestRunWaitsForStoreAndForDocumentAndSaysSoOnce starts a node with no etcd, then with an
// empty document, then with a good document.
func TestRunWaitsForStoreAndForDocumentAndSaysSoOnce(t *testing.T) {
	l := newLab(t, lab.Options{Nodes: 1})
	n := l.Nodes[0]
	settle(t, n)
	before := lab.Snapshot(n.Host)
	if err := n.Start(); err != nil {
		t.Fatal(err)
	}
	says(t, n, "waiting")
	if code, _, err := n.Ask(t.Context(), "/readyz"); err != nil || code == 200 {
		t.Errorf("readyz of a waiting node: %d, %v", code, err)
	}
	if err := l.Store.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	says(t, n, "no network document")
	if waits := strings.Count(n.Daemon().Log(), "waiting"); waits > 3 {
		t.Errorf("said %d times that it waits, want once for each reason:\n%s", waits, n.Daemon().Log())
	}
	for _, d := range lab.Differences(before, lab.Snapshot(n.Host)) {
		if strings.HasPrefix(d, "+ files") || strings.HasPrefix(d, "- files") {
			continue
		}
		t.Errorf("changed the host while it waited: %s", d)
	}
	if err := l.Put(lab.Document(l.Families)); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), standLimit)
	defer cancel()
	if err := n.Serving(ctx); err != nil {
		t.Fatal(err)
	}
}

// TestOtherCommandsEndInTimeWithoutStore wants every command that asks etcd to give up by
// itself, with a single line on standard error.
func TestOtherCommandsEndInTimeWithoutStore(t *testing.T) {
	l := newLab(t, lab.Options{Nodes: 1})
	n := l.Nodes[0]
	endpoint := "http://" + netip.AddrPortFrom(l.Store.Addr, 1).String() // nobody listens
	for _, args := range [][]string{
		{"plan", "--iface", "eth0", "--timeout", "3s"},
		{"network", "get", "--timeout", "3s"},
		{"lease", "list", "--timeout", "3s"},
		{"down", "--timeout", "5s"},
	} {
		t.Run(args[0], func(t *testing.T) {
			start := time.Now()
			out, err := n.Loden(append(args, "--etcd-endpoints", endpoint)...)
			if err == nil {
				t.Errorf("succeeded: %s", out)
			}
			if took := time.Since(start); took > 30*time.Second {
				t.Errorf("took %v", took)
			}
			t.Log(strings.TrimSpace(out))
		})
	}
}

// TestOtherCommandsFailWithoutDocument wants the same of an etcd that holds no network, and
// of a node whose daemon does not run.
func TestOtherCommandsFailWithoutDocument(t *testing.T) {
	l := newLab(t, lab.Options{Nodes: 1})
	if err := l.Store.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	for args, want := range map[string]string{
		"plan --iface eth0 --timeout 3s --etcd-endpoints " + l.Store.Endpoint(): "no network document",
		"network get --timeout 3s --etcd-endpoints " + l.Store.Endpoint():       "no network document",
		"status": "loden run",
	} {
		out, err := l.Nodes[0].Loden(strings.Fields(args)...)
		if err == nil || !strings.Contains(out, want) || strings.Count(strings.TrimSpace(out), "\n") > 0 {
			t.Errorf("loden %s: %v, want one line with %q:\n%s", args, err, want, out)
		}
	}
}

// TestDataPathOutlivesStore stops etcd under a running cluster: everything still reaches
// everything, also after a restart of a daemon, and the nodes find back by themselves.
func TestDataPathOutlivesStore(t *testing.T) {
	l := upLab(t, lab.Options{Nodes: 2, Pods: 1})
	for _, n := range l.Nodes {
		if err := n.Serving(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.Store.Stop(); err != nil {
		t.Fatal(err)
	}
	verdict(t, l)
	if err := l.Nodes[0].Stop(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if err := l.Nodes[0].Start(); err != nil {
		t.Fatal(err)
	}
	says(t, l.Nodes[0], "waiting")
	verdict(t, l)
	if err := l.Store.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), standLimit)
	defer cancel()
	if err := l.Nodes[0].Serving(ctx); err != nil {
		t.Error(err)
	}
	verdict(t, l)
}
