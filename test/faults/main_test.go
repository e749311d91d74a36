// Package faults_test owns the proof that an operator learns of a fault: it injects one fault
// at a time into a whole cluster, and wants `loden status`, `loden why` or `loden doctor` to
// name the cause and the remedy within 30 seconds; and no command may name a fault on a
// healthy cluster. The numbers are the rows of docs/troubleshooting.md.
//
// `make test` injects the faults that are named in a moment, `make test-faults` all of them.
package faults_test

import (
	"context"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/loden-net/loden/config/opt"
	"github.com/loden-net/loden/test/lab"
	"github.com/loden-net/loden/test/sandbox/sandboxtest"
)

var all = flag.Bool("all", false, "inject every fault, and look at every healthy cluster: minutes")

func TestMain(m *testing.M) {
	flag.Parse()
	sandboxtest.Main(m)
}

// The time limits: for a cluster to stand, and for a fault to be named.
const (
	standLimit = 90 * time.Second
	nameLimit  = 30 * time.Second
)

// bed is a cluster in which a fault is injected: two nodes with a pod each, and a third node
// without a daemon.
type bed struct {
	*lab.Lab
	a, b, c *lab.Node
}

// newBed makes a cluster. start says which nodes run the daemon.
func newBed(t *testing.T, o lab.Options, start int) *bed {
	t.Helper()
	if o.Nodes == 0 {
		o.Nodes = 3
	}
	if o.Families == "" {
		o.Families = lab.Dual
	}
	if o.Underlay == "" {
		o.Underlay = lab.IPv4
	}
	bin := os.Getenv("LODEN_BIN")
	if bin == "" {
		bin = "../../bin"
	}
	var err error
	if o.Bin, err = filepath.Abs(bin); err != nil {
		t.Fatal(err)
	}
	l, err := lab.New(o)
	t.Cleanup(func() {
		if t.Failed() {
			for _, n := range l.Nodes {
				if d := n.Daemon(); d != nil {
					t.Logf("%s said:\n%s", n.Name, d.Tail(15))
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
	ctx, cancel := context.WithTimeout(t.Context(), standLimit)
	defer cancel()
	if err := l.Store.Start(ctx); err != nil {
		t.Fatal(err)
	}
	if err := l.Put(lab.Document(o.Families)); err != nil {
		t.Fatal(err)
	}
	b := &bed{Lab: l, a: l.Nodes[0]}
	if len(l.Nodes) > 1 {
		b.b = l.Nodes[1]
	}
	if len(l.Nodes) > 2 {
		b.c = l.Nodes[2]
	}
	for _, n := range l.Nodes[:start] {
		startNode(t, n)
		if _, err := n.Attach(ctx); err != nil {
			t.Fatal(err)
		}
	}
	return b
}

// startNode starts the daemon of a node with further flags, and waits until it is ready.
func startNode(t *testing.T, n *lab.Node, flags ...string) {
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

// sh runs shell commands on a node.
func sh(t *testing.T, n interface {
	Output(name string, args ...string) (string, error)
}, script string,
) string {
	t.Helper()
	out, err := n.Output("sh", "-ec", script)
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(out)
}

// subnetOf returns a node's subnet of a family.
func subnetOf(t *testing.T, n *lab.Node, f opt.Family) string {
	t.Helper()
	env, err := n.Env()
	if err != nil {
		t.Fatal(err)
	}
	p, _ := env.Subnets.Of(f).Get()
	return p.Masked().String()
}

// evidence is where a fault must be named.
type evidence struct {
	node    *lab.Node
	command []string // of the program loden
	cause   string   // regular expressions over the output in a line
	remedy  string
}

// saw asks the command once and returns why the evidence is not there, or "".
func (e evidence) saw() string {
	out, _ := e.node.Loden(e.command...) // the exit status tells of the fault too
	text := strings.Join(strings.Fields(out), " ")
	for _, want := range []string{e.cause, e.remedy} {
		if !regexp.MustCompile(want).MatchString(text) {
			return fmt.Sprintf("loden %s on %s does not say %q:\n%s", strings.Join(e.command, " "), e.node.Name, want, out)
		}
	}
	return ""
}

// named waits until a command names the fault with its remedy.
func named(t *testing.T, evidences ...evidence) {
	t.Helper()
	began := time.Now()
	for {
		var missing []string
		for _, e := range evidences {
			if text := e.saw(); text == "" {
				t.Logf("named by `loden %s` on %s after %.1f s", strings.Join(e.command, " "), e.node.Name, time.Since(began).Seconds())
				return
			} else {
				missing = append(missing, text)
			}
		}
		if time.Since(began) > nameLimit {
			t.Fatalf("not named within %v:\n%s", nameLimit, strings.Join(missing, "\n"))
		}
		select {
		case <-t.Context().Done():
			return
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// healthy waits until no command names a fault on a node.
func healthy(t *testing.T, nodes ...*lab.Node) {
	t.Helper()
	for _, n := range nodes {
		sandboxtest.Until(t, standLimit, n.Name+" to be without a fault", func() error {
			if out, err := n.Loden("status"); err != nil {
				return fmt.Errorf("loden status: %w\n%s", err, out)
			}
			out, err := n.Loden("doctor")
			if err != nil || regexp.MustCompile(`(?m)^[✗!]`).MatchString(out) {
				return fmt.Errorf("loden doctor: %v\n%s", err, out)
			}
			return nil
		})
	}
}

// title is the name of the subtest of a fault.
func title(f fault) string { return fmt.Sprintf("%02d %s", f.number, f.name) }

// mended matches findings that tell the past: they stay for a while when the fault is over.
var mended = regexp.MustCompile(`(?m)^! (engine|guard): .*$`)

// healthyAgain waits until no command names a fault that is still there.
func healthyAgain(t *testing.T, b *bed) {
	t.Helper()
	sandboxtest.Until(t, standLimit, "the fault to be over", func() error {
		out, _ := b.a.Loden("doctor", "--timeout", "2s") // a finding that tells the past is a warning
		if regexp.MustCompile(`(?m)^[✗!]`).MatchString(mended.ReplaceAllString(out, "")) {
			return fmt.Errorf("loden doctor on %s:\n%s", b.a.Name, out)
		}
		return nil
	})
}
