package node

import (
	"context"
	"errors"
	"io/fs"
	"sync"
	"time"

	"github.com/rs/zerolog"
	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"github.com/loden-net/loden/backend"
	"github.com/loden-net/loden/config/opt"
	"github.com/loden-net/loden/config/wait"
	"github.com/loden-net/loden/network"
	"github.com/loden-net/loden/subnet"
)

// leaseFeed stands between the store and the reconciler. It passes each snapshot of the
// leases through the removal hold, and keeps on disk what the node needs to start while
// etcd is away.
//
//	store --- offer ---> removal hold ---> reconciler
//	              '----> leases on disk --- start ---'
type leaseFeed struct {
	reconciler *network.Reconciler
	log        zerolog.Logger
	storeWait  time.Duration // how long the leases from disk remove no peer
	changed    wait.Signal   // the file, or the time until a removal is due, may have changed

	mu       sync.Mutex // guards the fields below
	hold     subnet.RemovalHold
	newest   opt.Option[subnet.Snapshot] // from the store, or from disk until the store has spoken
	at       time.Time                   // when newest was true
	fromDisk bool                        // newest is the snapshot of an earlier run
	patience time.Time                   // end of the wait for the store, while newest is from disk
	document []byte                      // the network document, as in the store
	disk     leasesOnDisk
}

func newLeaseFeed(s Settings, r *network.Reconciler) *leaseFeed {
	return &leaseFeed{
		reconciler: r, log: s.Log, storeWait: s.StoreWait, changed: wait.NewSignal(),
		hold: subnet.NewRemovalHold(s.RemovalHold, subnet.Leases{}), disk: leasesOnDisk{stateDir: s.StateDir},
	}
}

// start takes the leases of an earlier run from disk, if they are this node's. The
// reconciler then works with them until the store has spoken. The copy may be older than the
// peers of the interface, so it adds peers, and removes none.
func (f *leaseFeed) start(name string, key wgtypes.Key) {
	saved, n, err := loadSaved(f.disk.stateDir, name, key)
	if errors.Is(err, fs.ErrNotExist) {
		return
	}
	if err != nil {
		f.log.Warn().Err(err).Msg("leases of an earlier run not used")
		return
	}
	f.mu.Lock()
	f.hold = subnet.NewRemovalHold(f.hold.Hold, saved.Snapshot.Leases)
	f.newest, f.at, f.fromDisk, f.document = opt.Some(saved.Snapshot), saved.At, true, saved.Document
	f.patience = time.Now().Add(f.storeWait)
	f.mu.Unlock()
	f.log.Info().Time("taken", saved.At).Int("leases", saved.Snapshot.Leases.Len()).Msg("starting from the leases on disk")
	f.reconciler.Update(func(in *network.Inputs) {
		in.Network, in.Lease, in.Removals = n, opt.Some(saved.Self), backend.RemoveNone
	})
	f.reconciler.Offer(saved.Snapshot)
}

// offer takes a snapshot from the store.
func (f *leaseFeed) offer(s subnet.Snapshot) {
	f.mu.Lock()
	f.newest, f.at, f.fromDisk = opt.Some(s), time.Now(), false
	f.mu.Unlock()
	f.settle()
	f.changed.Set()
}

// setDocument takes the network document from the store, and returns the document before.
func (f *leaseFeed) setDocument(data []byte) (before []byte) {
	f.mu.Lock()
	before, f.document = f.document, data
	f.mu.Unlock()
	f.changed.Set()
	return before
}

// confirm releases the held removals on an operator's word.
func (f *leaseFeed) confirm() {
	f.mu.Lock()
	held, _ := f.hold.Held()
	f.hold = f.hold.Confirm()
	f.mu.Unlock()
	f.log.Warn().Int("leases", len(held)).Msg("held removals confirmed")
	f.settle()
}

// settle passes the newest snapshot through the removal hold to the reconciler. It returns
// the time after which a removal is due; 0 when no removal waits.
func (f *leaseFeed) settle() time.Duration {
	f.mu.Lock()
	defer f.mu.Unlock()
	s, ok := f.newest.Get()
	if !ok {
		return 0
	}
	if f.fromDisk {
		return f.settleDiskLocked()
	}
	before, _ := f.hold.Held()
	var out subnet.Snapshot
	f.hold, out = f.hold.Next(time.Now(), s)
	held, until := f.hold.Held()
	if len(held) > len(before) {
		f.log.Warn().Int("leases", len(held)).Time("until", until).
			Msg("many leases vanished at once: their peers are kept for now; `loden lease confirm` removes them")
	}
	f.reconciler.Offer(out)
	f.allow(backend.RemoveUnwanted) // after the leases: no pass may see the leases from disk with it
	if until.IsZero() {
		return 0
	}
	return max(time.Until(until), time.Millisecond)
}

// settleDiskLocked lets the leases from disk remove silent peers, once the wait for the store
// is over. It returns the rest of the wait, or 0 after it.
func (f *leaseFeed) settleDiskLocked() time.Duration {
	if rest := time.Until(f.patience); rest > 0 {
		return rest
	}
	if f.allow(backend.RemoveSilent) {
		f.log.Warn().Msg("etcd has not answered within --store-wait: peers without a handshake that the leases on disk do not name are removed now")
	}
	return 0
}

// allow sets how far a pass may take something away, and reports whether that is new.
func (f *leaseFeed) allow(r backend.Removals) bool {
	if f.reconciler.Inputs().Removals == r {
		return false
	}
	f.reconciler.Update(func(in *network.Inputs) { in.Removals = r })
	return true
}

// held returns the names of the nodes whose leases are held back, or the key forms of
// leases without a node name.
func (f *leaseFeed) held() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	leases, _ := f.hold.Held()
	var out []string
	for _, l := range leases {
		if l.Node != "" {
			out = append(out, l.Node)
		} else {
			out = append(out, subnet.FormatKey(l.Subnets))
		}
	}
	return out
}

// age returns when the newest snapshot was true, its problems, and whether it is from disk.
func (f *leaseFeed) age() (at time.Time, problems []subnet.Problem, fromDisk bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.at, f.newest.Or(subnet.Snapshot{}).Problems, f.fromDisk
}

const (
	// quietTime is the least time between two writes of the file: a whole cluster that
	// starts costs a few writes, not a write for each node.
	quietTime = time.Second

	// saveRetry is the time after which a failed write of the file is repeated.
	saveRetry = 10 * time.Second
)

// Run keeps the file up to date and releases held removals when they are due, until ctx
// ends; then it returns nil.
func (f *leaseFeed) Run(ctx context.Context) error {
	said := false // the file's failure is logged once, and again after a success
	for {
		next := f.settle()
		err := f.save()
		if err != nil {
			next = sooner(next, saveRetry)
			if !said {
				f.log.Error().Err(err).Msg("leases not kept on disk, so this node would start from older leases while etcd is away; trying again")
			}
		}
		said = err != nil
		if !wait.For(ctx, quietTime) {
			break
		}
		if !f.awaitChange(ctx, next) {
			break
		}
	}
	if err := f.save(); err != nil {
		f.log.Error().Err(err).Msg("leases not kept on disk")
	}
	return nil
}

// awaitChange waits for a change, for ctx, or for a time unless it is 0. It reports whether
// ctx is still alive.
func (f *leaseFeed) awaitChange(ctx context.Context, limit time.Duration) bool {
	var due <-chan time.Time
	if limit > 0 {
		timer := time.NewTimer(limit)
		defer timer.Stop()
		due = timer.C
	}
	select {
	case <-ctx.Done():
		return false
	case <-f.changed.C():
	case <-due:
	}
	return true
}

// sooner returns the shorter of two waits, of which 0 means no wait at all.
func sooner(a, b time.Duration) time.Duration {
	if a == 0 || b < a {
		return b
	}
	return a
}

// save writes the file, once this node and the store have leases to write.
func (f *leaseFeed) save() error {
	in := f.reconciler.Inputs()
	f.mu.Lock()
	defer f.mu.Unlock()
	s, known := f.newest.Get()
	own, held := in.Lease.Get()
	if !known || !held || f.fromDisk || len(f.document) == 0 {
		return nil
	}
	return f.disk.save(subnet.Saved{At: f.at, Document: f.document, Self: own, Snapshot: s})
}
