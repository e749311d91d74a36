package node

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/loden-net/loden/config"
	"github.com/loden-net/loden/config/opt"
	"github.com/loden-net/loden/network"
	"github.com/loden-net/loden/subnet/etcd"
)

// DownOptions are the exceptions from the removal.
type DownOptions struct {
	KeepLease bool // the lease stays in etcd, so that the subnets stay this node's
}

// Down applies the zero State and releases the lease. The host is cleared even when etcd
// is away; the error then says that the lease stays. No daemon may run meanwhile.
func Down(ctx context.Context, s Settings, o DownOptions) error {
	return realEnvironment().down(ctx, s, o)
}

func (e environment) down(ctx context.Context, s Settings, o DownOptions) error {
	h, err := e.openTools(ctx, s, opt.None[config.Network]())
	if err != nil {
		return err
	}
	defer h.close()
	lock, err := lockNode(s.RunDir)
	if err != nil {
		return err
	}
	defer lock.Close()
	if _, err = h.reconciler(func(network.Status) {}).Apply(ctx, network.State{}); err != nil {
		return fmt.Errorf("remove from this host: %w", err)
	}
	sweep(s)
	if err := dropRecord(s.RunDir); err != nil {
		return err
	}
	s.Log.Info().Msg("loden's key and the leases on disk are all that is left on this host")
	if o.KeepLease {
		return nil
	}
	return e.release(ctx, s)
}

// releaseLimit bounds the wait for etcd after the host was cleared.
const releaseLimit = 10 * time.Second

func (e environment) release(ctx context.Context, s Settings) error {
	ctx, cancel := context.WithTimeout(ctx, releaseLimit)
	defer cancel()
	st, err := e.store(ctx, s)
	if err == nil {
		err = errors.Join(st.Release(ctx, s.Name), st.Close())
	}
	switch {
	case errors.Is(err, etcd.ErrNoLease):
		return nil
	case err != nil:
		return fmt.Errorf("the host is clear, but its lease stays until it runs out: %w: later, `loden lease release %s` releases it", err, s.Name)
	}
	s.Log.Info().Str("node", s.Name).Msg("lease released")
	return nil
}
