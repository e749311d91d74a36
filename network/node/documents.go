package node

import (
	"context"
	"errors"
	"fmt"
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
	rollback   *rollback
	log        zerolog.Logger

	mu      sync.Mutex // guards the fields below
	trouble string     // why the last document of the store is not used; "" when it is used
	refused int64      // revision of the document after which the store was lost; 0 when none
}

// take passes on a document, or notes why there is none. A document that is wrong or that
// would cut the node off, or a store that refuses, ends a node that never had a valid
// document, neither from the store nor from disk; for every other node the last valid
// document stands.
func (d *documents) take(ctx context.Context, doc etcd.Document, err error) {
	in := d.reconciler.Inputs()
	known := in.Network
	if err == nil && doc.Network != known {
		err = d.judge(ctx, in, doc)
	}
	switch {
	case err == nil:
		d.log.Info().Int64("revision", doc.Revision).Msg("network document read")
		for _, w := range config.NetworkWarnings(doc.Data) {
			d.log.Warn().Str("reason", w).Msg("a part of the network document has no effect")
		}
		d.note("")
		before := d.feed.setDocument(doc.Data)
		if known != (config.Network{}) && doc.Network != known {
			d.rollback.try(trial{document: doc, before: known, lease: in.Lease, text: before})
		}
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

// judge refuses a document that would cut this node off, or that did.
func (d *documents) judge(ctx context.Context, in network.Inputs, doc etcd.Document) error {
	d.mu.Lock()
	refused := d.refused
	d.mu.Unlock()
	if refused != 0 && doc.Revision == refused {
		return fmt.Errorf("this node lost the store for a minute after it used the document of revision %d, and found the store again without it: "+
			"write a better document, or the same document again, with `loden network put`", refused)
	}
	in.Network = doc.Network
	if in.Uplinks.IsZero() {
		in.HostState = d.host
	}
	return reachable(ctx, in, d.etcd)
}

// refuse refuses the document of a revision from then on; 0 refuses none.
func (d *documents) refuse(revision int64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.refused = revision
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
