package main

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/loden-net/loden/config"
	"github.com/loden-net/loden/network/node"
)

func whyCommand(flags *config.Node) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "why FROM TO",
		Short: "Say why packets do not pass between two pods or nodes, hop by hop",
		Long: "Follow a packet between two pods or nodes, hop by hop, and name the first broken step with the command that " +
			"mends it. An end is a node (its name, or an address that it announces) or a pod (its address; on its own node " +
			"also its name, NAMESPACE/NAME or container ID). The daemon of each node answers for its own half, through the " +
			"tunnel, so the command runs on any node; the half of a node that gives no answer is unknown.\n\n" +
			"The exit status is 0 when every step passes, 3 when a step is broken or a half is unknown, 4 when no daemon " +
			"answers on this node.",
		Args:              cobra.ExactArgs(2),
		ValidArgsFunction: completeNodes(flags, 2),
		RunE: func(cmd *cobra.Command, args []string) error {
			x, err := node.Why(cmd.Context(), flags.RunDir, args[0], args[1])
			if errors.Is(err, node.ErrUnknownEnd) {
				return usageError(err)
			}
			if err != nil {
				return err
			}
			if asJSON {
				err = printJSON(cmd.OutOrStdout(), x)
			} else {
				err = printExplanation(cmd.OutOrStdout(), x)
			}
			if err == nil && (x.Broken || x.Incomplete) {
				return exitError{status: exitDegraded}
			}
			return err
		},
	}
	flags.HostFlags(cmd.Flags())
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

// printExplanation prints the hops in the order of the way, and the verdict at the end, where a
// reader looks first.
func printExplanation(out io.Writer, x node.Explanation) error {
	p, width := paintFor(out), widthOf(out)
	var b strings.Builder
	fmt.Fprintf(&b, "%s → %s\n", endText(x.From), endText(x.To))
	last, broken := "", false
	for _, h := range x.Hops {
		if h.Node != last {
			fmt.Fprintf(&b, "%s\n", p.bold(h.Node))
			last = h.Node
		}
		sign := map[node.State]string{node.Good: "✓", node.Warn: "!", node.Bad: "✗", node.Unknown: "?"}[h.State]
		line := wrap(h.What+": "+h.Detail, width-4, 6)
		if broken {
			line = p.dim(line)
		}
		fmt.Fprintf(&b, "  %s %s\n", p.verdict(h.State, sign), line)
		broken = broken || h.State == node.Bad
	}
	colour := p.green
	switch {
	case x.Broken:
		colour = p.red
	case x.Remedy != "":
		colour = p.yellow
	}
	fmt.Fprintf(&b, "\n%s\n", colour(wrap(x.Verdict, width, 0)))
	if x.Remedy != "" {
		fmt.Fprintf(&b, "%s %s\n", p.bold("→"), wrap(x.Remedy, width-2, 2))
	}
	_, err := io.WriteString(out, b.String())
	return err
}

// endText prints an end of the way.
func endText(e node.End) string {
	if e.Pod {
		return fmt.Sprintf("pod %s on %s", e.Address, e.Node)
	}
	return fmt.Sprintf("node %s (%s)", e.Node, e.Address)
}
