package main

import (
	"context"
	"fmt"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/loden-net/loden/config"
	"github.com/loden-net/loden/config/diff"
	"github.com/loden-net/loden/network/node"
)

func planCommand(flags *config.Node) *cobra.Command {
	var asJSON bool
	var timeout time.Duration
	cmd := &cobra.Command{
		Use:   "plan",
		Short: "Print the changes that `loden run` would make now, and make none",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			settings, err := settingsOfDaemon(cmd, flags)
			if err != nil {
				return err
			}
			ctx, cancel := context.WithTimeout(cmd.Context(), timeout)
			defer cancel()
			changes, err := node.Plan(ctx, settings)
			if err != nil {
				return err
			}
			return printChanges(cmd, changes, asJSON)
		},
	}
	flags.StoreFlags(cmd.Flags())
	flags.HostFlags(cmd.Flags())
	flags.RunFlags(cmd.Flags())
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	cmd.Flags().DurationVar(&timeout, "timeout", 10*time.Second, "how long to wait for etcd")
	return cmd
}

// printChanges prints changes as a table or as JSON.
func printChanges(cmd *cobra.Command, changes []diff.Change, asJSON bool) error {
	out := cmd.OutOrStdout()
	if asJSON {
		if changes == nil {
			changes = []diff.Change{}
		}
		return printJSON(out, struct {
			versioned
			Changes []diff.Change `json:"changes"`
		}{version1(), changes})
	}
	if len(changes) == 0 {
		_, err := fmt.Fprintln(out, "no change")
		return err
	}
	w := tabwriter.NewWriter(out, 0, 8, 2, ' ', 0)
	for _, c := range changes {
		fmt.Fprintf(w, "%s\t%s\t%s\n", c.Part, c.Verb, c.Object)
	}
	return w.Flush()
}
