package node

import (
	"context"
	"time"

	"github.com/rs/zerolog"

	"github.com/loden-net/loden/config"
	"github.com/loden-net/loden/config/opt"
	"github.com/loden-net/loden/network"
	"github.com/loden-net/loden/subnet"
	"github.com/loden-net/loden/subnet/etcd"
)

const (
	// trialTime is the time in which a loss of the store counts as the work of a new network
	// document. A running node asks the store every 30 seconds.
	trialTime = time.Minute

	// trialLoss is how long the store must stay lost until the document is taken back.
	trialLoss = time.Minute

	// trialPace is the time between two looks at the store during a trial.
	trialPace = time.Second
)

// rollback takes a network document back after which the node lost the store: a node that
// cannot reach the store never hears of a better document.
//
//	new document ---> trial ----- store answers for a minute ----> the document stands
//	                    '-- store lost for a minute --> the document before is used:
//	                           store answers again ----> the new document was the cause and stays
//	                                                     refused, until it is written again
//	                           store stays lost -------> it was not the cause
type rollback struct {
	store      storeStatus
	reconciler *network.Reconciler
	keeper     *leaseKeeper
	feed       *leaseFeed
	refuse     func(revision int64) // refuses the document of a revision; 0 refuses none
	log        zerolog.Logger

	trials chan trial // holds the newest trial that Run has not taken yet
}

// trial is a network document that replaced another document of a running node.
type trial struct {
	document etcd.Document
	before   config.Network
	lease    opt.Option[subnet.Lease] // under the document before
	text     []byte                   // of the document before
}

// try begins the trial of a document. It does not block.
func (r *rollback) try(t trial) { replace(r.trials, t) }

// Run watches over trials until ctx ends, and then returns nil.
func (r *rollback) Run(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case t := <-r.trials:
			if !r.watch(ctx, &t) {
				continue
			}
			r.refuse(t.document.Revision) // first: the store shows the document again as soon as it answers
			r.undo(t)
			if !r.answers(ctx) {
				r.refuse(0)
			}
		}
	}
}

// watch follows a trial to its end, and reports whether the store was lost. A document that
// arrives meanwhile is tried too, and a failure goes back to the document before the first.
func (r *rollback) watch(ctx context.Context, t *trial) (failed bool) {
	tick := time.NewTicker(trialPace)
	defer tick.Stop()
	begun := time.Now()
	var lost time.Time // zero while the store answers
	for {
		select {
		case <-ctx.Done():
			return false
		case next := <-r.trials:
			t.document, begun = next.document, time.Now()
			if next.document.Network == t.before {
				return false // an operator was faster
			}
		case now := <-tick.C:
			switch {
			case r.store.Status().Connected:
				lost = time.Time{}
				if now.Sub(begun) >= trialTime {
					return false
				}
			case lost.IsZero():
				lost = now
			case now.Sub(lost) >= trialLoss:
				return true
			}
		}
	}
}

// undo makes the document before, and the lease under it, the node's again.
func (r *rollback) undo(t trial) {
	r.log.Error().Int64("revision", t.document.Revision).Stringer("lost", trialLoss).
		Msg("the store is lost since the network document changed: the document before is used again")
	r.feed.setDocument(t.text)
	r.reconciler.Update(func(in *network.Inputs) { in.Network, in.Lease = t.before, t.lease })
	r.keeper.setNetwork(t.before)
}

// answers waits up to trialTime for the store, and reports whether it answered.
func (r *rollback) answers(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, trialTime)
	defer cancel()
	tick := time.NewTicker(trialPace)
	defer tick.Stop()
	for !r.store.Status().Connected {
		select {
		case <-ctx.Done():
			return false
		case <-tick.C:
		}
	}
	return true
}
