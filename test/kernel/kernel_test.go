//go:build kernel

// Package kernel_test owns the proof that whole clusters work on kernel WireGuard, and
// with kernel and userspace nodes mixed: the programs of bin/, a real etcd, real
// namespaces, under Debian's kernel. run.sh boots that; the tests do not run elsewhere.
package kernel_test

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/loden-net/loden/config/opt"
	"github.com/loden-net/loden/test/lab"
	"github.com/loden-net/loden/test/sandbox/sandboxtest"
)

func TestMain(m *testing.M) { sandboxtest.Main(m) }

// restarts is how often the daemons of a cluster are ended and started under its streams.
var restarts = flag.Int("restarts", 8, "restarts of daemons under the streams of each cluster")

// limit bounds every wait: the guest's processor is emulated.
const limit = 5 * time.Minute

// cluster makes a lab and waits until it stands.
func cluster(t *testing.T, o lab.Options) *lab.Lab {
	t.Helper()
	bin, err := filepath.Abs(os.Getenv("LODEN_BIN"))
	if err != nil {
		t.Fatal(err)
	}
	o.Bin, o.Report = bin, func(line string) { t.Log(line) }
	l, err := lab.New(o)
	t.Cleanup(func() {
		if t.Failed() {
			for _, n := range l.Nodes {
				if d := n.Daemon(); d != nil {
					t.Logf("%s said:\n%s", n.Name, d.Tail(30))
				}
			}
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

func up(t *testing.T, l *lab.Lab) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	if err := l.Up(ctx); err != nil {
		t.Fatal(err)
	}
	serving(t, l.Nodes...)
}

func serving(t *testing.T, nodes ...*lab.Node) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	for _, n := range nodes {
		if err := n.Serving(ctx); err != nil {
			t.Fatal(err)
		}
	}
}

// good fails the test for every pod that does not answer, and every packet in clear.
func good(t *testing.T, l *lab.Lab) {
	t.Helper()
	v := l.Check(t.Context())
	for _, p := range v.Problems {
		t.Error(p)
	}
	if v.Underlay[lab.Tunnel] == 0 || len(v.Paths) == 0 {
		t.Errorf("%d paths, underlay %v", len(v.Paths), v.Underlay)
	}
	t.Logf("%d paths, %d exits, underlay %v, internet %v", len(v.Paths), len(v.Exits), v.Underlay, v.Internet)
}

// wants says which kind of WireGuard node i should report, and holds it to that.
func wants(t *testing.T, l *lab.Lab, kinds []string) {
	t.Helper()
	for i, n := range l.Nodes {
		want := kinds[i%len(kinds)]
		if want == "auto" {
			want = "kernel"
		}
		out, err := n.Output("ip", "-d", "link", "show", "loden0")
		if err != nil {
			t.Fatal(err)
		}
		if is := strings.Contains(out, "wireguard"); is != (want == "kernel") {
			t.Errorf("%s should be %s:\n%s", n.Name, want, out)
		}
		// On a busy emulated processor an answer may take longer than the time limits of status.
		sandboxtest.Until(t, limit, "status of "+n.Name+" to be good", func() error {
			text, err := n.Loden("status", "--json")
			if err == nil && (!json.Valid([]byte(text)) || !strings.Contains(text, `"`+want+`"`)) {
				err = fmt.Errorf("no %s in %s", want, text)
			}
			return err
		})
	}
}

// TestClusterWorksAndRestartsLoseNoPacket is the product in both set-ups: every pod
// reaches every pod and the outside, nothing is in clear, and the daemons of two nodes end
// and start under a stream of packets between them.
func TestClusterWorksAndRestartsLoseNoPacket(t *testing.T) {
	for name, c := range map[string]struct {
		engines  []string
		underlay lab.Families
	}{
		"kernel over IPv4":               {[]string{"auto"}, lab.IPv4},
		"kernel and userspace over IPv6": {[]string{"kernel", "wireguard-go"}, lab.IPv6},
	} {
		t.Run(name, func(t *testing.T) {
			l := cluster(t, lab.Options{Nodes: 3, Pods: 1, Families: lab.Dual, Underlay: c.underlay, Engines: c.engines})
			up(t, l)
			wants(t, l, c.engines)
			good(t, l)
			w := newWitness(t, l)
			underStreams(t, l, func() {
				for i := range *restarts {
					w.note("restart %d of %s", i, l.Nodes[i%2].Name)
					restart(t, l.Nodes[i%2], []syscall.Signal{syscall.SIGTERM, syscall.SIGKILL}[i/2%2])
				}
			})
			if t.Failed() {
				w.report(t)
			}
			for _, n := range l.Nodes {
				out, err := n.Loden(append([]string{"plan", "--timeout", limit.String()}, n.Flags()...)...)
				if err != nil || strings.TrimSpace(out) != "no change" {
					t.Errorf("plan on running %s: %v\n%s", n.Name, err, out)
				}
			}
			good(t, l)
		})
	}
}

// restart ends a node's daemon and starts it again, until it is ready.
func restart(t *testing.T, n *lab.Node, s syscall.Signal) {
	t.Helper()
	if err := n.Stop(s); err != nil {
		t.Fatal(err)
	}
	if err := n.Start(); err != nil {
		t.Fatal(err)
	}
	serving(t, n)
}

// underStreams runs work while pods of the first two nodes send to each other, and wants
// every packet to arrive. The emulated processor bears this rate.
func underStreams(t *testing.T, l *lab.Lab, work func()) {
	t.Helper()
	a, b := l.Nodes[0].Pods[0], l.Nodes[1].Pods[0]
	streams := []lab.Stream{
		{From: a, To: b, Family: opt.V4, Rate: 100, Least: 100},
		{From: b, To: a, Family: opt.V6, Rate: 100, Least: 100},
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
	work()
	stop()
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
	for i, f := range flows {
		t.Logf("stream %d: sent %d, received %d, longest gap %v", i, f.Sent, f.Received, f.Gap)
		if f.Received != f.Sent {
			t.Errorf("stream %d: %d of %d lost, the first are %v", i, f.Sent-f.Received, f.Sent, f.Lost)
		}
	}
}

// TestDownLeavesTheHostAsFound compares a kernel node and a userspace node before `loden
// run` and after `loden down`.
func TestDownLeavesTheHostAsFound(t *testing.T) {
	l := cluster(t, lab.Options{Nodes: 2, Families: lab.Dual, Underlay: lab.IPv4, Engines: []string{"kernel", "wireguard-go"}})
	var before [][]string
	for _, n := range l.Nodes {
		before = append(before, lab.Snapshot(n.Host))
	}
	up(t, l)
	for i, n := range l.Nodes {
		if err := n.Stop(syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
		if out, err := n.Loden(append([]string{"down", "--timeout", limit.String()}, n.Flags()...)...); err != nil {
			t.Errorf("down on %s: %v\n%s", n.Name, err, out)
		}
		for _, d := range lab.Differences(before[i], lab.Snapshot(n.Host)) {
			t.Errorf("%s is not as found: %s", n.Name, d)
		}
	}
}
