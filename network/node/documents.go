package node

import (
	"context"
	"errors"
	"sync"

	"github.com/rs/zerolog"

	"github.com/loden-net/loden/config"
	"github.com/loden-net/loden/network"
	"github.com/loden-net/loden/subnet/etcd"
)

// documents follows the network document: it passes each valid document on, and keeps the
// last valid document while the store has a wrong document, none, or refuses to show it.
type documents struct {
	etcd       config.Etcd
	host       network.HostState // as observed before the first pass
	reconciler *network.Reconciler
	keeper     *leaseKeeper
	feed       *leaseFeed
	log        zerolog.Logger

	mu      sync.Mutex // guards trouble
	trouble string     // why the last document of the store is not used; "" when it is used
}

// take passes on a document, or notes why there is none. A document that is wrong or that
// would cut the node off, or a store that refuses, ends a node that never had a valid
// document, neither from the store nor from disk; for every other node the last valid
// document stands.
func (d *documents) take(ctx context.Context, doc etcd.Document, err error) {
	in := d.reconciler.Inputs()
	known := in.Network
	if err == nil && doc.Network != known {
		err = d.judge(ctx, in, doc.Network)
	}
	switch {
	case err == nil:
		d.log.Info().Int64("revision", doc.Revision).Msg("network document read")
		for _, w := range config.NetworkWarnings(doc.Data) {
			d.log.Warn().Str("reason", w).Msg("a part of the network document has no effect")
		}
		d.note("")
		d.feed.setDocument(doc.Data)
		d.keeper.setNetwork(doc.Network)
	case errors.Is(err, etcd.ErrUnavailable):
		d.log.Warn().Err(err).Msg("waiting for etcd")
	case known != (config.Network{}):
		d.keeper.setNetwork(known) // a node that started from disk keeps its lease under the document on disk
		d.note("the network document in the store is not used, the last valid document stands: " + oneLine(err.Error()))
		d.log.Error().Err(err).Msg("the network document in the store is not used; the last valid document stands")
	case errors.Is(err, etcd.ErrNoNetwork):
		d.log.Warn().Err(err).Msg("waiting for a network document")
	default:
		d.keeper.fail(err)
	}
}

// judge refuses a network that would cut this node off.
func (d *documents) judge(ctx context.Context, in network.Inputs, n config.Network) error {
	in.Network = n
	if in.Uplinks.IsZero() {
		in.HostState = d.host
	}
	return reachable(ctx, in, d.etcd)
}

func (d *documents) note(trouble string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.trouble = trouble
}

// refusal returns why the document in the store is not used, or "".
func (d *documents) refusal() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.trouble
}
