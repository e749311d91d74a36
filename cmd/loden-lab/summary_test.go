package main

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/loden-net/loden/test/lab"
	"github.com/loden-net/loden/test/sandbox"
)

// largeLab is a lab of 12 nodes with a good verdict: a path between every two nodes.
func largeLab() (*lab.Lab, lab.Verdict) {
	l := &lab.Lab{Options: lab.Options{Families: lab.IPv4}}
	for i := range 12 {
		l.Nodes = append(l.Nodes, &lab.Node{Host: &sandbox.Host{Name: fmt.Sprintf("node%d", i+1)}})
	}
	v := lab.Verdict{OK: true}
	for _, from := range l.Nodes {
		for _, to := range l.Nodes {
			v.Paths = append(v.Paths, lab.Path{
				FromNode: from.Name, ToNode: to.Name, Family: "IPv4", Local: from == to, Encrypted: from != to,
				Latency: time.Duration(len(v.Paths)+1) * 10 * time.Microsecond,
			})
		}
		v.Exits = append(v.Exits, lab.Exit{Node: from.Name, Family: "IPv4", SeenAs: netip.MustParseAddr("198.18.0.17")})
	}
	return l, v
}

func TestLargeLabIsSummedUp(t *testing.T) {
	l, v := largeLab()
	const want = `
IPv4, node to node: 132 paths, 132 answered in the tunnel
  echo: fastest 0.02 ms, p50 0.72 ms, p90 1.28 ms, p99 1.41 ms, slowest 1.43 ms
  slowest paths: node12 to node7 1.39 ms; node12 to node8 1.40 ms; node12 to node9 1.41 ms; node12 to node10 1.42 ms; node12 to node11 1.43 ms;

outside: 12 of 12 exits answered as their node

underlay: 0 clear, 0 unexpected frames
internet: 0 clear, 0 unexpected frames

verdict: good. 144 paths and 12 exits, no pod traffic in clear; plaintext sent on purpose was seen each time
`
	if got := table(l, v); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestSummaryDrawsTheRowsWithBrokenPaths(t *testing.T) {
	l, v := largeLab()
	v.OK = false
	for i, p := range v.Paths {
		switch {
		case p.FromNode == "node3" && p.ToNode == "node5":
			v.Paths[i].Problem, v.Paths[i].Latency = "ping: no answer", 0
		case p.FromNode == "node3" && p.ToNode == "node6":
			v.Paths[i].Encrypted = false
		}
	}
	got := table(l, v)
	for _, want := range []string{
		"132 paths, 130 answered in the tunnel",
		"nodes with broken paths, as an end of so many: node3 2; node5 1; node6 1;\n",
		"  node3    ..\\.xC......\n",
		"  node5    ....\\.......\n",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("the summary has no %q:\n%s", want, got)
		}
	}
	if strings.Contains(got, "  node1  ") {
		t.Errorf("the summary has the row of a node without broken paths:\n%s", got)
	}
	if whole := matrix(l, v); strings.Count(whole, "\n  node") != 12 {
		t.Errorf("the matrix does not have all 12 rows:\n%s", whole)
	}
}

func TestLiveTableShowsBrokenPathsInRed(t *testing.T) {
	now := time.Date(2026, 11, 27, 12, 0, 10, 0, time.UTC)
	l := &lab.Lab{Options: lab.Options{Families: lab.IPv4}, Nodes: []*lab.Node{
		{Host: &sandbox.Host{Name: "node1"}}, {Host: &sandbox.Host{Name: "node2"}},
	}}
	paths := []lab.LivePath{
		{From: "node1", To: "node2", Family: "IPv4", Latency: 310 * time.Microsecond},
		{From: "node2", To: "node1", Family: "IPv4", Latency: 1, Silent: 3, Since: now.Add(-3 * time.Second)},
	}
	want := "live 12:00:10: " + red + "1 of 2 paths do not answer" + plain + "; pod traffic in clear on the wires: 0 frames\n" +
		"\n" +
		"  IPv4      node1     node2     \n" +
		"  node1     -         " + plain + green + "0.31 ms   " + plain + "\n" +
		"  node2     " + red + "DOWN 3 s  " + plain + "-         " + plain
	if got := strings.Join(liveLines(l, paths, now, 0), "\n"); got != want {
		t.Errorf("got\n%q\nwant\n%q", got, want)
	}
}

func TestLiveViewOfALargeLabNamesTheWorstNodeFirst(t *testing.T) {
	l, v := largeLab()
	now := time.Now()
	var paths []lab.LivePath
	for _, p := range between(v.Paths, "IPv4") {
		live := lab.LivePath{From: p.FromNode, To: p.ToNode, Family: "IPv4", Latency: time.Millisecond}
		if p.FromNode == "node7" || p.ToNode == "node7" {
			live.Silent, live.Since = 2, now.Add(-2*time.Second)
		}
		paths = append(paths, live)
	}
	lines := liveLines(l, paths, now, 0)
	if len(lines) != 13 || !strings.Contains(lines[1], "node7: 22 of 22 paths DOWN, the first for 2 s") || !strings.Contains(lines[0], "22 of 132 paths do not answer") {
		t.Errorf("got\n%s", strings.Join(lines, "\n"))
	}
}
