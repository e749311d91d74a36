package main

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/loden-net/loden/test/lab"
)

// A lab with more nodes is shown as a summary, not as a table.
const tableNodes = 10

const (
	worstPaths = 5 // that the summary lists
	matrixRows = 60
)

// summary returns the verdict on a large lab as text: percentiles, the slowest paths, the nodes with
// broken paths, and the matrix as characters where it has broken paths.
func summary(l *lab.Lab, v lab.Verdict) string {
	var b strings.Builder
	for _, f := range l.Families.List() {
		paths := between(v.Paths, f.String())
		fmt.Fprintf(&b, "\n%s, node to node: %d paths, %d answered in the tunnel\n", f, len(paths), count(paths, good))
		if answered := slices.DeleteFunc(slices.Clone(paths), func(p lab.Path) bool { return p.Latency == 0 }); len(answered) > 0 {
			slices.SortFunc(answered, func(a, c lab.Path) int { return cmp.Compare(a.Latency, c.Latency) })
			at := func(q float64) string { return milliseconds(answered[int(q*float64(len(answered)-1))].Latency) }
			fmt.Fprintf(&b, "  echo: fastest %s, p50 %s, p90 %s, p99 %s, slowest %s\n", at(0), at(.5), at(.9), at(.99), at(1))
			fmt.Fprint(&b, "  slowest paths:")
			for _, p := range answered[max(0, len(answered)-worstPaths):] {
				fmt.Fprintf(&b, " %s to %s %s;", p.FromNode, p.ToNode, milliseconds(p.Latency))
			}
			b.WriteString("\n")
		}
		b.WriteString(broken(l, paths))
	}
	fmt.Fprintf(&b, "\noutside: %d of %d exits answered as their node\n", len(v.Exits)-count(v.Exits, func(e lab.Exit) bool { return e.Problem != "" }), len(v.Exits))
	closing(&b, v)
	return b.String()
}

// between returns the paths of a family that lead over the underlay.
func between(paths []lab.Path, family string) (out []lab.Path) {
	for _, p := range paths {
		if p.Family == family && !p.Local {
			out = append(out, p)
		}
	}
	return out
}

func good(p lab.Path) bool { return p.Problem == "" && p.Encrypted }

func count[T any](all []T, is func(T) bool) (n int) {
	for _, x := range all {
		if is(x) {
			n++
		}
	}
	return n
}

// broken names the nodes with broken paths, and draws their rows of the matrix.
func broken(l *lab.Lab, paths []lab.Path) string {
	bad := map[string]int{}
	for _, p := range paths {
		if !good(p) {
			bad[p.FromNode]++
			bad[p.ToNode]++
		}
	}
	if len(bad) == 0 {
		return ""
	}
	var b strings.Builder
	b.WriteString("  nodes with broken paths, as an end of so many:")
	var rows []*lab.Node
	for _, n := range l.Nodes {
		if bad[n.Name] > 0 {
			fmt.Fprintf(&b, " %s %d;", n.Name, bad[n.Name])
			rows = append(rows, n)
		}
	}
	b.WriteString("\n")
	if len(rows) > matrixRows {
		fmt.Fprintf(&b, "  the first %d of %d rows with broken paths (--matrix FILE writes all rows):\n", matrixRows, len(rows))
		rows = rows[:matrixRows]
	}
	b.WriteString(characters(l, rows, paths))
	return b.String()
}

// legend explains the characters of the matrix.
const legend = ". in the tunnel   x no answer   C answered in clear   \\ the node itself   - not checked"

// characters returns rows of the matrix of a family: a line for each node, with a character for
// each node that it asks.
func characters(l *lab.Lab, rows []*lab.Node, paths []lab.Path) string {
	marks := map[[2]string]byte{}
	for _, p := range paths {
		key := [2]string{p.FromNode, p.ToNode}
		switch {
		case p.Problem != "":
			marks[key] = 'x'
		case !p.Encrypted:
			marks[key] = max(marks[key], 'C')
		default:
			marks[key] = max(marks[key], '.')
		}
	}
	var b strings.Builder
	fmt.Fprintf(&b, "  %s\n", legend)
	for _, from := range rows {
		fmt.Fprintf(&b, "  %-8s ", from.Name)
		for _, to := range l.Nodes {
			mark := marks[[2]string{from.Name, to.Name}]
			switch {
			case from.Name == to.Name:
				mark = '\\'
			case mark == 0:
				mark = '-'
			}
			b.WriteByte(mark)
		}
		b.WriteString("\n")
	}
	return b.String()
}

// matrix returns the whole matrix of every family as characters.
func matrix(l *lab.Lab, v lab.Verdict) string {
	var b strings.Builder
	for _, f := range l.Families.List() {
		fmt.Fprintf(&b, "%s, %s\n%s\n", f, time.Now().UTC().Format(time.RFC3339), characters(l, l.Nodes, between(v.Paths, f.String())))
	}
	return b.String()
}
