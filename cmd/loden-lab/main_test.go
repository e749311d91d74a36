package main

import (
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/loden-net/loden/test/lab"
	"github.com/loden-net/loden/test/sandbox"
)

// wantTable is the table of a cluster with a path in clear and a dead path.
const wantTable = `
IPv4, pod to pod: fastest echo, and what the wire between the nodes showed

  from \ to   node1               node2               outside, seen as
  node1       0.05 ms same node   1.50 ms encrypted   0.20 ms 198.18.0.17
  node2       2.00 ms IN CLEAR    no answer           seen as 10.244.2.2, not as its node's 198.18.0.18

underlay: 12 wireguard, 3 etcd, 1 clear, 0 unexpected frames
internet: 0 clear, 0 unexpected frames
PROBLEM  first
PROBLEM  second

verdict: bad, 2 problems
`

func TestTableSaysWhatWasFound(t *testing.T) {
	l := &lab.Lab{Options: lab.Options{Families: lab.IPv4}, Nodes: []*lab.Node{
		{Host: &sandbox.Host{Name: "node1"}}, {Host: &sandbox.Host{Name: "node2"}},
	}}
	path := func(from, to string, took time.Duration) lab.Path {
		return lab.Path{FromNode: from, ToNode: to, Family: "IPv4", Latency: took, Local: from == to}
	}
	sealed, dead := path("node1", "node2", 1500*time.Microsecond), path("node2", "node2", 0)
	sealed.Encrypted, dead.Problem = true, "ping: no answer"
	slower := sealed
	slower.Latency *= 2
	v := lab.Verdict{
		Paths: []lab.Path{path("node1", "node1", 50*time.Microsecond), slower, sealed, path("node2", "node1", 2*time.Millisecond), dead},
		Exits: []lab.Exit{
			{Node: "node1", Family: "IPv4", Latency: 200 * time.Microsecond, SeenAs: netip.MustParseAddr("198.18.0.17")},
			{Node: "node2", Family: "IPv4", Problem: "seen as 10.244.2.2, not as its node's 198.18.0.18"},
		},
		Underlay: map[lab.Kind]int{lab.Etcd: 3, lab.Tunnel: 12, lab.Clear: 1},
		Problems: []string{"first", "second"},
	}
	if got := table(l, v); got != wantTable {
		t.Errorf("got\n%s\nwant\n%s", got, wantTable)
	}
}

func TestTableShortensLongListsOfProblems(t *testing.T) {
	l := &lab.Lab{}
	got := table(l, lab.Verdict{Problems: make([]string, 100)})
	if n := strings.Count(got, "PROBLEM"); n != maxProblems+1 || !strings.Contains(got, "and 88 more") {
		t.Errorf("%d lines of problems:\n%s", n, got)
	}
}

// TestFindLabKnowsOnlyOwnLabInItsSandbox looks through a made-up /proc.
func TestFindLabKnowsOnlyOwnLabInItsSandbox(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	proc := t.TempDir()
	process := func(pid int, exe, environ string) {
		t.Helper()
		dir := filepath.Join(proc, strconv.Itoa(pid))
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(exe, filepath.Join(dir, "exe")); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "environ"), []byte(environ), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	process(10, self, "PATH=/bin\x00")                                    // the waiting parent
	process(11, "/usr/bin/other", "A=b\x00"+sandbox.InsideEnv+"\x00")     // a test in a sandbox
	process(12, self, "A=b\x00LODEN_SANDBOX_STAGE=init\x00PATH=/bin\x00") // its init
	if pid, err := findLab(proc); err == nil {
		t.Errorf("found %d where no lab runs", pid)
	}
	process(13, self, "A=b\x00"+sandbox.InsideEnv+"\x00PATH=/bin\x00")
	if pid, err := findLab(proc); pid != 13 || err != nil {
		t.Errorf("found %d, %v, want 13", pid, err)
	}
	process(14, self, sandbox.InsideEnv+"\x00")
	if pid, err := findLab(proc); err == nil {
		t.Errorf("found %d where two labs run", pid)
	}
}

func TestBadOptionsAreRefusedBeforeAnythingIsMade(t *testing.T) {
	for name, o := range map[string]options{
		"no node":       {nodes: 0, families: "dual", underlay: "ipv4"},
		"families":      {nodes: 3, families: "both", underlay: "ipv4"},
		"two underlays": {nodes: 3, families: "dual", underlay: "dual"},
	} {
		settings, err := o.lab(nil)
		if err == nil {
			err = settings.Validate()
		}
		if err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}
