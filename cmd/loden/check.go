package main

import (
	"fmt"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/loden-net/loden/config"
	"github.com/loden-net/loden/network/node"
)

func checkCommand(flags *config.Node) *cobra.Command {
	var asJSON, onWire bool
	var timeout time.Duration
	cmd := &cobra.Command{
		Use:   "check",
		Short: "Look for the causes that would keep this host from being a node, and name the remedies",
		Long: "Look for the causes that would keep this host from being a node. Every failure has its cause and its remedy. " +
			"The host is not changed. The exit status is 1 when a check fails.\n\n" +
			"With --wire also look at the uplinks for a moment and count packets with overlay addresses in clear. A few empty " +
			"packets with overlay addresses are sent to prove that a sample would see them.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			settings, err := settingsOfDaemon(cmd, flags)
			if err != nil {
				return err
			}
			findings := node.Check(cmd.Context(), settings, node.CheckOptions{Wire: onWire, Limit: timeout})
			if err := printFindings(cmd, findings, asJSON); err != nil {
				return err
			}
			for _, f := range findings {
				if f.State == node.Bad {
					return exitError{status: 1}
				}
			}
			return nil
		},
	}
	flags.StoreFlags(cmd.Flags())
	flags.HostFlags(cmd.Flags())
	flags.RunFlags(cmd.Flags())
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	cmd.Flags().BoolVar(&onWire, "wire", false, "look at the uplinks for overlay addresses in clear")
	cmd.Flags().DurationVar(&timeout, "timeout", 5*time.Second, "time limit of each finding")
	return cmd
}

func printFindings(cmd *cobra.Command, findings []node.Finding, asJSON bool) error {
	if asJSON {
		return printJSON(cmd.OutOrStdout(), struct {
			versioned
			Findings []node.Finding `json:"findings"`
		}{version1(), findings})
	}
	w := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 8, 2, ' ', 0)
	for _, f := range findings {
		fmt.Fprintf(w, "%s\t%s\t%s\n", f.State, f.What, f.Detail)
		if f.Remedy != "" {
			fmt.Fprintf(w, "\t\t→ %s\n", f.Remedy)
		}
	}
	return w.Flush()
}
