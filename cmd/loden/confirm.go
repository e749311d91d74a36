package main

import (
	"github.com/spf13/cobra"

	"github.com/loden-net/loden/config"
	"github.com/loden-net/loden/network/node"
)

// confirmCommand lets a held mass removal go at once, on this flags.
func confirmCommand(flags *config.Node) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "confirm",
		Short: "Remove, on this node, the peers of a held mass removal",
		Long: "When more than a fifth of the leases, and more than three, vanish at once, their peers are kept for " +
			"--removal-hold in case it was a mistake. This command removes them at once.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return node.Confirm(cmd.Context(), flags.RunDir)
		},
	}
	cmd.Flags().StringVar(&flags.RunDir, "run-dir", "/run/loden", "directory of the status socket")
	return cmd
}
