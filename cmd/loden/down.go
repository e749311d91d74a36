package main

import (
	"context"
	"time"

	"github.com/spf13/cobra"

	"github.com/loden-net/loden/config"
	"github.com/loden-net/loden/network/node"
)

func downCommand(flags *config.Node) *cobra.Command {
	var keepLease bool
	var timeout time.Duration
	cmd := &cobra.Command{
		Use:   "down",
		Short: "Remove all that loden made on this host, and give its lease back",
		Long: "Remove the interface, routes, rules, kernel settings and files that `loden run` made, and give the lease " +
			"back. The private key stays: it is this node's identity. `loden run` must not be running.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			settings, err := settingsOfDaemon(cmd, flags)
			if err != nil {
				return err
			}
			ctx, cancel := context.WithTimeout(cmd.Context(), timeout)
			defer cancel()
			return node.Down(ctx, settings, node.DownOptions{KeepLease: keepLease})
		},
	}
	flags.StoreFlags(cmd.Flags())
	flags.HostFlags(cmd.Flags())
	flags.RunFlags(cmd.Flags())
	cmd.Flags().BoolVar(&keepLease, "keep-lease", false, "leave the lease in etcd, so that the subnets stay this node's")
	cmd.Flags().DurationVar(&timeout, "timeout", 30*time.Second, "how long to try")
	return cmd
}
