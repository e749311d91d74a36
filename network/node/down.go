package node

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/rs/zerolog"

	"github.com/loden-net/loden/config"
	"github.com/loden-net/loden/config/opt"
	"github.com/loden-net/loden/network"
	"github.com/loden-net/loden/subnet/etcd"
)

// DownOptions say what Down leaves.
type DownOptions struct {
	KeepLease bool // leave the lease in etcd, so that the subnets stay this node's
}

// Down applies the zero State and releases the lease. The host is cleared even when etcd
// is away; the error then says that the lease stays. No daemon may run meanwhile.
func Down(ctx context.Context, s Settings, o DownOptions) error {
	node, log := &s.Node, s.Log
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
	if o.KeepLease {
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
