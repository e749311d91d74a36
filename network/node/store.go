package node

import (
	"context"
	"errors"
	"time"

	"github.com/loden-net/loden/backend"
	"github.com/loden-net/loden/config"
	"github.com/loden-net/loden/config/opt"
	"github.com/loden-net/loden/subnet"
	"github.com/loden-net/loden/subnet/etcd"
)

// store is the registry as a running node needs it.
type store interface {
	Network(ctx context.Context) (config.Network, error)
	Snapshot(ctx context.Context) (subnet.Snapshot, error)
	Watch(ctx context.Context, emit func(subnet.Snapshot)) error
	WatchNetwork(ctx context.Context, emit func(etcd.Document, error)) error
	Status() etcd.Status
	Close() error
	leaseStore
}

// leaseStore is the registry as far as the life of this node's lease needs it.
type leaseStore interface {
	acquire(ctx context.Context, w etcd.Want) (claim, error)
	Choice(ctx context.Context, w etcd.Want) (etcd.Choice, error) // of acquire, which it does not make
	Release(ctx context.Context, name string) error
}

// claim is a lease that this node holds.
type claim interface {
	Lease() subnet.Lease                                 // the lease as the store has it
	Keep(ctx context.Context) error                      // renews until the lease is lost or ctx ends
	Update(ctx context.Context, want subnet.Lease) error // writes other endpoints
}

// registry is the store in etcd.
type registry struct{ *etcd.Registry }

func (r registry) acquire(ctx context.Context, w etcd.Want) (claim, error) {
	c, err := r.Acquire(ctx, w)
	if err != nil {
		return nil, err // not c: a nil *Claim in an interface is not nil
	}
	return c, nil
}

// firstRequest bounds the first request to etcd: it is long enough for an etcd that
// answers, and short enough that a node whose etcd is away still starts soon.
const firstRequest = 3 * time.Second

// knownNetwork returns the network document from etcd, else the document of the leases on
// disk. Neither is no error, since Run waits for both etcd and the document. A wrong
// document, or an etcd that refuses, is an error only for a node without leases on disk.
func knownNetwork(ctx context.Context, s Settings, st store) (opt.Option[config.Network], error) {
	ctx, cancel := context.WithTimeout(ctx, firstRequest)
	defer cancel()
	n, err := st.Network(ctx)
	if err == nil {
		return opt.Some(n), nil
	}
	if key, err := backend.ReadKey(s.StateDir); err == nil {
		if _, n, err := loadSaved(s.StateDir, s.Name, key.Public()); err == nil {
			return opt.Some(n), nil
		}
	}
	if errors.Is(err, etcd.ErrNoNetwork) || errors.Is(err, etcd.ErrUnavailable) || ctx.Err() != nil {
		return opt.None[config.Network](), nil
	}
	return opt.None[config.Network](), err
}
