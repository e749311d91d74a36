package main

import (
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/loden-net/loden/network/node"
	"github.com/loden-net/loden/network/probe"
)

// maxMatrix is how many nodes the matrix has columns for; of more nodes the broken paths are
// listed.
const maxMatrix = 20

// showMatrix prints the paths between all nodes. The exit status is 3 when a path is broken.
func showMatrix(ctx context.Context, out io.Writer, runDir string, asJSON bool) error {
	m, err := node.AskMatrix(ctx, runDir)
	if err != nil {
		return err
	}
	if asJSON {
		err = printJSON(out, m)
	} else {
		err = printMatrix(out, m, paintFor(out))
	}
	if err == nil && brokenPaths(m) > 0 {
		return exitError{status: exitDegraded}
	}
	return err
}

// states maps a row's peers to their states.
func statesOf(r node.MatrixRow) map[string]string {
	out := map[string]string{}
	for _, p := range r.Peers {
		out[p.Node] = p.State
	}
	return out
}

func brokenPaths(m node.Matrix) int {
	n := 0
	for _, r := range m.Rows {
		for _, p := range r.Peers {
			if p.State == probe.Down || p.State == probe.OneWay || p.State == probe.MTU {
				n++
			}
		}
	}
	return n
}

// printMatrix prints a row for each node that reports, and a column for each node that is
// reported about.
func printMatrix(out io.Writer, m node.Matrix, p paint) error {
	var b strings.Builder
	fmt.Fprintf(&b, "%s, %s\n\n", counts(len(m.Nodes), "node"), counts(brokenPaths(m), "broken path"))
	if len(m.Nodes) <= maxMatrix {
		g := &grid{}
		head := plain("", "FROM \\ TO")
		for i := range m.Nodes {
			head = append(head, cell{text: fmt.Sprint(i + 1)})
		}
		g.add(head...)
		for i, r := range m.Rows {
			row := plain(fmt.Sprint(number(m.Nodes, r.Node, i)), clip(r.Node, 20))
			g.add(append(row, cellsOf(m, r, p)...)...)
		}
		b.WriteString(g.String())
		fmt.Fprintf(&b, "\n  ✓ up  ~ loss  M large packets lost  1 one way  ✗ down  ? not probed\n")
	}
	for _, r := range m.Rows {
		if r.Error != "" {
			fmt.Fprintf(&b, "%s\n", p.yellow(wrap(fmt.Sprintf("%s gave no report: %s", r.Node, oneLine(r.Error)), defaultWidth, 4)))
		}
		for _, peer := range r.Peers {
			if peer.State != probe.Up && peer.State != probe.Unknown {
				fmt.Fprintf(&b, "%s\n", p.state(peer.State, wrap(fmt.Sprintf("%s → %s is %s: %s", r.Node, peer.Node, peer.State, reasonOf(peer)), defaultWidth, 4)))
			}
		}
	}
	_, err := io.WriteString(out, b.String())
	return err
}

// number returns the column of a node, from 1.
func number(nodes []string, name string, otherwise int) int {
	for i, n := range nodes {
		if n == name {
			return i + 1
		}
	}
	return otherwise + 1
}

// cellsOf returns the signs of a row.
func cellsOf(m node.Matrix, r node.MatrixRow, p paint) []cell {
	states := statesOf(r)
	var out []cell
	for _, name := range m.Nodes {
		state, ok := states[name]
		switch {
		case name == r.Node:
			out = append(out, cell{text: "·", colour: p.dim})
		case !ok:
			out = append(out, cell{text: missing, colour: p.dim})
		default:
			out = append(out, cell{text: signOf(state), colour: func(s string) string { return p.state(state, s) }})
		}
	}
	return out
}

// signOf returns the sign of a state.
func signOf(state string) string {
	signs := map[string]string{probe.Up: "✓", probe.Degraded: "~", probe.MTU: "M", probe.OneWay: "1", probe.Down: "✗"}
	if s, ok := signs[state]; ok {
		return s
	}
	return "?"
}

// reasonOf returns the reason of the worst path.
func reasonOf(p node.MatrixPeer) string {
	for _, path := range p.Paths {
		if path.State == p.State {
			return path.Reason
		}
	}
	return ""
}
