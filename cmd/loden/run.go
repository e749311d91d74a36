package main

import (
	"github.com/spf13/cobra"

	"github.com/loden-net/loden/config"
	"github.com/loden-net/loden/network/node"
)

func runCommand(flags *config.Node) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "run",
		Short: "Run this node: keep its lease, its peers and its rules",
		Long: "Run this node until SIGTERM or SIGINT. The data path stays when it ends, in whatever way; " +
			"`loden down` removes it.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			settings, err := settingsOf(flags, cmd.ErrOrStderr())
			if err != nil {
				return err
			}
			if settings.Record, err = config.RecordFlags(cmd.LocalFlags()); err != nil {
				return err
			}
			return node.Run(cmd.Context(), settings)
		},
	}
	flags.StoreFlags(cmd.Flags())
	flags.HostFlags(cmd.Flags())
	flags.RunFlags(cmd.Flags())
	cmd.Flags().BoolVar(&flags.Wait, "wait", false, "stand by while another loden runs on this node, and take over when it ends, in whatever way")
	return cmd
}
