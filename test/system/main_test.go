// Package system_test owns the proof that a whole cluster does what the README promises:
// real programs from bin/, a real etcd, WireGuard, rules and namespaces, and a packet
// socket on the wires. It knows the programs by their command lines only.
//
// `make test` and `make e2e` build bin/ first; with plain `go test` run `make build` before.
package system_test

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/loden-net/loden/test/lab"
	"github.com/loden-net/loden/test/sandbox/sandboxtest"
)

func TestMain(m *testing.M) { sandboxtest.Main(m) }

// standLimit is how long a cluster may take to stand on a machine with other work to do.
const standLimit = 90 * time.Second

// programs returns the directory of the programs under test.
func programs(t testing.TB) string {
	t.Helper()
	dir := os.Getenv("LODEN_BIN")
	if dir == "" {
		dir = "../../bin"
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// newLab makes a lab that is removed with the test. What its daemons said is printed when
// the test fails.
func newLab(t testing.TB, o lab.Options) *lab.Lab {
	t.Helper()
	if o.Bin == "" {
		o.Bin = programs(t)
	}
	if o.Families == "" {
		o.Families = lab.Dual
	}
	if o.Underlay == "" {
		o.Underlay = lab.IPv4
	}
	o.Report = func(line string) { t.Log(line) }
	l, err := lab.New(o)
	t.Cleanup(func() {
		if t.Failed() {
			showLogs(t, l)
		}
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// upLab makes a lab and waits until it stands.
func upLab(t testing.TB, o lab.Options) *lab.Lab {
	t.Helper()
	l := newLab(t, o)
	ctx, cancel := context.WithTimeout(t.Context(), standLimit)
	defer cancel()
	if err := l.Up(ctx); err != nil {
		t.Fatal(err)
	}
	return l
}

// showLogs prints the end of every daemon's log.
func showLogs(t testing.TB, l *lab.Lab) {
	t.Helper()
	for _, n := range l.Nodes {
		if d := n.Daemon(); d != nil {
			t.Logf("%s said:\n%s", n.Name, d.Tail(40))
		}
	}
}

// verdict checks the lab and fails the test for every problem.
func verdict(t testing.TB, l *lab.Lab) lab.Verdict {
	t.Helper()
	v := l.Check(t.Context())
	for _, p := range v.Problems {
		t.Error(p)
	}
	t.Logf("%d paths, %d exits, underlay %v, internet %v", len(v.Paths), len(v.Exits), v.Underlay, v.Internet)
	return v
}
