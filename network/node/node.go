package node

import (
	"context"
	"sync"
	"time"

	"github.com/rs/zerolog"

	"github.com/loden-net/loden/config/wait"
	"github.com/loden-net/loden/network"
	"github.com/loden-net/loden/network/trace"
)

// node is a node that runs: it ties the store, the reconciler and the machine together.
// Its methods, and those of its parts, are the long-lived goroutines of Run.
type node struct {
	settings   Settings
	host       *host
	store      store
	reconciler *network.Reconciler
	keeper     *leaseKeeper
	feed       *leaseFeed
	documents  *documents
	sampler    *sampler
	prober     *prober
	reporter   *reporter
	linux      trace.Kernel // for explanations
	recorder   *recorder
	log        zerolog.Logger

	once      sync.Once
	firstPass chan struct{} // closed after the first complete pass
}

// newNode returns a node that has not started. The caller has opened the host's key.
func newNode(h *host, st store) *node {
	s := h.settings
	n := &node{linux: trace.Linux{}, settings: s, host: h, store: st, log: s.Log, firstPass: make(chan struct{})}
	n.recorder = newRecorder(func(ctx context.Context) Report { return n.reporter.report(ctx) })
	n.recorder.look = n.look
	n.reconciler = h.reconciler(n.passed)
	n.keeper = newLeaseKeeper(h, st, n.reconciler)
	n.keeper.lost, n.recorder.log = n.recorder.lost, s.Log
	n.feed = newLeaseFeed(s, n.reconciler)
	n.documents = &documents{etcd: s.Etcd, host: h.state, reconciler: n.reconciler, keeper: n.keeper, feed: n.feed, log: s.Log}
	n.documents.rollback = &rollback{
		store: st, reconciler: n.reconciler, keeper: n.keeper, feed: n.feed, refuse: n.documents.refuse, log: s.Log, trials: make(chan trial, 1),
	}
	n.sampler = &sampler{every: s.WireSample, log: s.Log}
	n.prober = newProber(h, n.feed, n.answer)
	n.reporter = &reporter{
		settings: s, key: h.key.Public(), reconciler: n.reconciler, device: h.device, firewall: h.firewall, store: st,
		keeper: n.keeper, feed: n.feed, documents: n.documents, sampler: n.sampler, prober: n.prober, askDevice: newSlot(), askFirewall: newSlot(), made: n.recorder.reported,
	}
	return n
}

// passed follows the reconciler: the first complete pass makes the node ready, and changed
// uplinks change the endpoints that the node announces. It must not block.
func (n *node) passed(s network.Status) {
	n.recorder.passed(s)
	if s.Complete {
		n.once.Do(func() {
			n.log.Info().Stringer("took", s.Took.Round(time.Millisecond)).Uint64("changes", total(s.Changes)).Int("peers", plannedPeers(s).Len()).
				Msg("the data path is in place")
			n.warnOfConflicts()
			close(n.firstPass)
		})
	}
	n.keeper.passed.Set()
	n.prober.follow(s)
	own, ok := s.Inputs.Lease.Get()
	if ok && own.Endpoints != network.Endpoints(s.Inputs) {
		n.keeper.endpoints.Set()
	}
}

// total returns the sum of the changes of all parts.
func total(changes map[string]uint64) uint64 {
	var sum uint64
	for _, n := range changes {
		sum += n
	}
	return sum
}

// warnOfConflicts names the CNI configurations that a container runtime takes instead of
// this node's.
func (n *node) warnOfConflicts() {
	files, err := n.host.cni.conflicts()
	if err != nil {
		n.log.Warn().Err(err).Msg("CNI configurations not compared")
	}
	for _, path := range files {
		n.log.Warn().Str("file", path).Msg("this CNI configuration sorts before loden's, so container runtimes use it: remove the file to use loden")
	}
}

// api returns the handler of questions about this node.
func (n *node) api() api {
	return api{
		report: n.reporter.report, metrics: metricsHandler(n.reporter.report, n.settings.MetricsPeers, n.recorder.metrics.collectors()...), confirm: n.feed.confirm, why: n.why, views: n.views,
		matrix:  &matrixMaker{report: n.reporter.report, ask: n.ask},
		browser: newBrowser(n.recorder, n.reconciler.Status, n.settings.hostNames()),
	}
}

// watch runs a watcher of the kernel until ctx ends, and then returns nil. A watcher that
// fails is started again after a pause: a resync finds what it misses.
func (n *node) watch(ctx context.Context, w watcher) error {
	for {
		err := w(ctx, n.reconciler.Kick)
		if !wait.For(ctx, retryPause) {
			return nil
		}
		n.log.Warn().Err(err).Msg("watching the kernel again")
	}
}

// watcher calls notify for changes in the kernel until its context ends.
type watcher func(ctx context.Context, notify func()) error
