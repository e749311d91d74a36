package main

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/loden-net/loden/config"
	"github.com/loden-net/loden/network/node"
)

func doctorCommand(flags *config.Node) *cobra.Command {
	var asJSON, onWire, all bool
	var timeout time.Duration
	var bundle string
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "Examine this node: the host, the daemon, the pods' side, the routes and paths to every peer",
		Long: "Examine this node. Every finding has its own time limit, and every fault has its cause and the remedy. The " +
			"host is not changed. The findings are those of `loden check`, and with a running daemon: the problems of its " +
			"report, the engine, the pods' bridge, the CNI configuration, flannel's leftovers, the route to every peer with " +
			"the real rules of this host, the paths to the peers, their clocks, the endpoint at which they hear this node, " +
			"and the packets that the guard catches. The exit status is 1 when a finding fails.\n\n" +
			"With --bundle also write a file for an issue: the findings, the report, settings, interfaces, routing rules and " +
			"packet rules. Private key, preshared key and password are taken out.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			settings, err := settingsOfDaemon(cmd, flags)
			if err != nil {
				return err
			}
			d := node.Doctor(cmd.Context(), settings, node.CheckOptions{Wire: onWire, Limit: timeout})
			if bundle != "" {
				if err := node.WriteBundle(cmd.Context(), settings, d, bundle); err != nil {
					return err
				}
			}
			out := cmd.OutOrStdout()
			if asJSON {
				err = printJSON(out, d)
			} else {
				err = printDiagnosis(out, d, all, bundle)
			}
			if err == nil && d.Count(node.Bad) > 0 {
				return exitError{status: 1}
			}
			return err
		},
	}
	flags.StoreFlags(cmd.Flags())
	flags.HostFlags(cmd.Flags())
	flags.RunFlags(cmd.Flags())
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	cmd.Flags().BoolVar(&all, "all", false, "print every finding, not only the faults and a line for each kind")
	cmd.Flags().BoolVar(&onWire, "wire", false, "look at the uplinks for overlay addresses in clear")
	cmd.Flags().DurationVar(&timeout, "timeout", 5*time.Second, "time limit of each finding")
	cmd.Flags().StringVar(&bundle, "bundle", "", "file (.tar.gz) to write for an issue, without secrets")
	return cmd
}

// maxGoodPeers is how many peers without a fault are listed.
const maxGoodPeers = 10

// printDiagnosis prints the verdict, the faults with their remedies, and then the good findings.
func printDiagnosis(out io.Writer, d node.Diagnosis, all bool, bundle string) error {
	p, width := paintFor(out), widthOf(out)
	var b strings.Builder
	verdict := p.green("no fault found")
	if bad, warn := d.Count(node.Bad), d.Count(node.Warn); bad+warn > 0 {
		verdict = p.yellow(counts(warn, "warning"))
		if bad > 0 {
			verdict = p.red(counts(bad, "fault"))
			if warn > 0 {
				verdict += ", " + p.yellow(counts(warn, "warning"))
			}
		}
	}
	fmt.Fprintf(&b, "%s  %s\n", p.bold(d.Node), verdict)
	for _, state := range []node.State{node.Bad, node.Warn, node.Unknown, node.Good} {
		good := 0
		for _, f := range d.Findings {
			if f.State != state {
				continue
			}
			if strings.HasPrefix(f.What, "peer ") && state == node.Good {
				if good++; good > maxGoodPeers && !all {
					continue
				}
			}
			printFinding(&b, p, width, f)
		}
		if good > maxGoodPeers && !all {
			fmt.Fprintf(&b, "%s and %d more peers without a fault (--all lists them)\n", p.green("✓"), good-maxGoodPeers)
		}
	}
	if bundle != "" {
		fmt.Fprintf(&b, "\nwritten: %s; look through it before you send it\n", bundle)
	}
	_, err := io.WriteString(out, b.String())
	return err
}

// printFinding prints a finding with its remedy on lines of its own.
func printFinding(b *strings.Builder, p paint, width int, f node.Finding) {
	sign := map[node.State]string{node.Good: "✓", node.Warn: "!", node.Bad: "✗", node.Unknown: "?"}[f.State]
	fmt.Fprintf(b, "%s %s\n", p.verdict(f.State, sign), wrap(f.What+": "+f.Detail, width-2, 4))
	if f.Remedy != "" {
		fmt.Fprintf(b, "  %s %s\n", p.bold("→"), wrap(f.Remedy, width-4, 4))
	}
}

// counts prints a number with its noun.
func counts(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}
