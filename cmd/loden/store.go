package main

import (
	"context"
	"errors"
	"io/fs"
	"time"

	"github.com/rs/zerolog"
	"github.com/spf13/cobra"

	"github.com/loden-net/loden/config"
	"github.com/loden-net/loden/network/node"
	"github.com/loden-net/loden/subnet/etcd"
)

// store is the common part of the commands that use etcd without being the daemon.
type store struct{ timeout time.Duration }

func (s *store) flags(cmd *cobra.Command, flags *config.Node) {
	flags.StoreFlags(cmd.Flags())
	cmd.Flags().DurationVar(&s.timeout, "timeout", 5*time.Second, "how long to wait for etcd")
	cmd.Flags().StringVar(&flags.RunDir, "run-dir", "/run/loden", "directory of the daemon whose --etcd flags are taken, unless --etcd-endpoints is given")
	cmd.PreRunE = func(cmd *cobra.Command, _ []string) error { return storeOfDaemon(cmd, flags.RunDir) }
}

// storeOfDaemon takes the flags of etcd from the daemon that has the run directory, so that a
// command on a node speaks to the etcd of that node. Endpoints on the command line or in the
// environment name another etcd perhaps, for which the daemon's prefix and certificates are
// wrong. A user who may not read the daemon's settings gives the flags.
func storeOfDaemon(cmd *cobra.Command, runDir string) error {
	if cmd.Flags().Changed("etcd-endpoints") {
		return nil
	}
	err := fromDaemon(cmd, runDir)
	if errors.Is(err, fs.ErrPermission) {
		return nil
	}
	return err
}

// with opens the registry, calls do within the timeout, and closes the registry.
func (s *store) with(cmd *cobra.Command, flags *config.Node, do func(context.Context, *etcd.Registry) error) error {
	ctx, cancel := context.WithTimeout(cmd.Context(), s.timeout)
	defer cancel()
	return s.open(ctx, flags, do)
}

// open is like with, for a command that goes on after the first answer.
func (s *store) open(ctx context.Context, flags *config.Node, do func(context.Context, *etcd.Registry) error) error {
	opts := node.Settings{Settings: config.Settings{Etcd: flags.Etcd()}}.Store()
	opts.RPCTimeout, opts.DialTimeout = s.timeout, s.timeout
	r, err := etcd.Open(ctx, opts, zerolog.Nop())
	if err != nil {
		return err
	}
	defer r.Close()
	return do(ctx, r)
}
