package main

import (
	"fmt"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/loden-net/loden/test/lab"
)

// maxProblems is how many problems a person is shown.
const maxProblems = 12

// table returns the verdict as text: a block per family, with a line per node; of a large lab a summary.
func table(l *lab.Lab, v lab.Verdict) string {
	if len(l.Nodes) > tableNodes {
		return summary(l, v)
	}
	var b strings.Builder
	for _, f := range l.Families.List() {
		fmt.Fprintf(&b, "\n%s, pod to pod: fastest echo, and what the wire between the nodes showed\n\n", f)
		block(&b, l, v, f.String())
	}
	closing(&b, v)
	return b.String()
}

// closing writes the frames, the first problems and the verdict.
func closing(b *strings.Builder, v lab.Verdict) {
	fmt.Fprintf(b, "\nunderlay: %s\ninternet: %s\n", frames(v.Underlay), frames(v.Internet))
	for i, p := range v.Problems {
		if i == maxProblems {
			fmt.Fprintf(b, "PROBLEM  and %d more (--json has them all)\n", len(v.Problems)-i)
			break
		}
		fmt.Fprintf(b, "PROBLEM  %s\n", p)
	}
	if v.OK {
		fmt.Fprintf(b, "\nverdict: good. %d paths and %d exits, no pod traffic in clear; plaintext sent on purpose was seen each time\n", len(v.Paths), len(v.Exits))
	} else {
		fmt.Fprintf(b, "\nverdict: bad, %d problems\n", len(v.Problems))
	}
}

// block writes the matrix of a family.
func block(b *strings.Builder, l *lab.Lab, v lab.Verdict, family string) {
	w := tabwriter.NewWriter(b, 0, 0, 3, ' ', 0)
	fmt.Fprint(w, "  from \\ to")
	for _, n := range l.Nodes {
		fmt.Fprintf(w, "\t%s", n.Name)
	}
	fmt.Fprint(w, "\toutside, seen as\n")
	for _, from := range l.Nodes {
		fmt.Fprintf(w, "  %s", from.Name)
		for _, to := range l.Nodes {
			fmt.Fprintf(w, "\t%s", cell(v, from.Name, to.Name, family))
		}
		fmt.Fprintf(w, "\t%s\n", exitCell(v, from.Name, family))
	}
	_ = w.Flush() // into memory
}

// cell sums up the paths between the pods of two nodes.
func cell(v lab.Verdict, from, to, family string) string {
	var best time.Duration
	encrypted, local, count := true, false, 0
	for _, p := range v.Paths {
		if p.FromNode != from || p.ToNode != to || p.Family != family {
			continue
		}
		if p.Problem != "" {
			return "no answer"
		}
		if count++; best == 0 || p.Latency < best {
			best = p.Latency
		}
		encrypted, local = encrypted && p.Encrypted, p.Local
	}
	switch {
	case count == 0:
		return "-"
	case local:
		return milliseconds(best) + " same node"
	case encrypted:
		return milliseconds(best) + " encrypted"
	}
	return milliseconds(best) + " IN CLEAR"
}

// exitCell sums up the source addresses that the outside saw for a node's pods.
func exitCell(v lab.Verdict, node, family string) string {
	text := "-"
	for _, e := range v.Exits {
		if e.Node != node || e.Family != family {
			continue
		}
		if e.Problem != "" {
			return e.Problem
		}
		text = fmt.Sprintf("%s %s", milliseconds(e.Latency), e.SeenAs)
	}
	return text
}

func milliseconds(d time.Duration) string {
	return fmt.Sprintf("%.2f ms", float64(d)/float64(time.Millisecond))
}

// frames lists the kinds of frames in a fixed order.
func frames(counts map[lab.Kind]int) string {
	var parts []string
	for _, k := range []lab.Kind{lab.Tunnel, lab.Etcd, lab.Masked, lab.Neighbour, lab.Clear, lab.Unexpected} {
		if n := counts[k]; n > 0 || k == lab.Clear || k == lab.Unexpected {
			parts = append(parts, fmt.Sprintf("%d %s", n, k))
		}
	}
	return strings.Join(parts, ", ") + " frames"
}

// hints says how to look closer from another terminal.
func hints() string {
	self := os.Args[0]
	var b strings.Builder
	b.WriteString("\nLook closer, in another terminal:\n\n")
	for _, line := range [][2]string{
		{"node1", "loden status"},
		{"node1", "wg show"},
		{"node1", "ip -6 route"},
		{"store", "etcdctl get --prefix /coreos.com/network"},
		{"node1-pod1", "ip addr"},
		{"underlay", "ip link set node2 down"},
	} {
		fmt.Fprintf(&b, "  %s exec %s -- %s\n", self, line[0], line[1])
	}
	b.WriteString("\nThe last pulls the cable of node2 on the underlay; with \"up\" it is back.\nCtrl-C ends the lab and leaves nothing behind.\n\n")
	return b.String()
}
