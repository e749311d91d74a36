package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/rs/zerolog"
	"github.com/spf13/cobra"

	"github.com/loden-net/loden/config"
	"github.com/loden-net/loden/config/opt"
	"github.com/loden-net/loden/network"
	"github.com/loden-net/loden/subnet/etcd"
)

func downCommand(node *config.Node) *cobra.Command {
	var keepLease bool
	var timeout time.Duration
	cmd := &cobra.Command{
		Use:   "down",
		Short: "Remove everything of ours from this host, and give its lease back",
		Long: "Remove the interface, routes, rules, kernel settings and files that `loden run` made, and give the lease " +
			"back. The private key stays: it is who this node is. `loden run` must not be running.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			log, err := newLogger(node, cmd.ErrOrStderr())
			if err != nil {
				return err
			}
			ctx, cancel := context.WithTimeout(cmd.Context(), timeout)
			defer cancel()
			return down(ctx, node, log, keepLease)
		},
	}
	node.StoreFlags(cmd.Flags())
	node.HostFlags(cmd.Flags())
	node.RunFlags(cmd.Flags())
	cmd.Flags().BoolVar(&keepLease, "keep-lease", false, "leave the lease in etcd, so that the subnets stay this node's")
	cmd.Flags().DurationVar(&timeout, "timeout", 30*time.Second, "how long to try")
	return cmd
}

// down applies the zero State and releases the lease. The host is cleared even when etcd
// is away; the error then says that the lease stays.
func down(ctx context.Context, node *config.Node, log zerolog.Logger, keepLease bool) error {
	h, err := openTools(ctx, node, opt.None[config.Network](), log)
	if err != nil {
		return err
	}
	defer h.close()
	lock, err := lockNode(node.RunDir)
	if err != nil {
		return err
	}
	defer lock.Close()
	_, err = h.reconciler(func(network.Status) {}).Apply(ctx, network.State{})
	if err != nil {
		return fmt.Errorf("remove from this host: %w", err)
	}
	log.Info().Msg("nothing of loden is left on this host but its key")
	if keepLease {
		return nil
	}
	return release(ctx, node, log)
}

// releaseLimit bounds how long down waits for etcd once the host is clear.
const releaseLimit = 10 * time.Second

func release(ctx context.Context, node *config.Node, log zerolog.Logger) error {
	ctx, cancel := context.WithTimeout(ctx, releaseLimit)
	defer cancel()
	registry, err := openRegistry(ctx, node, log)
	if err == nil {
		err = errors.Join(registry.Release(ctx, node.Name), registry.Close())
	}
	switch {
	case errors.Is(err, etcd.ErrNoLease):
		return nil
	case err != nil:
		return fmt.Errorf("the host is clear, but its lease stays until it runs out: %w: later, `loden lease release %s` gives it back", err, node.Name)
	}
	log.Info().Str("node", node.Name).Msg("lease released")
	return nil
}
