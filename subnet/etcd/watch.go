package etcd

import (
	"context"
	"errors"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/loden-net/loden/config/wait"
	"github.com/loden-net/loden/subnet"
)

// errRelist ends following: the view may be wrong, so all leases are listed again.
var errRelist = errors.New("list again")

// Watch blocks until ctx ends and calls emit with every change, as a complete snapshot:
// first a list at some revision R, then the changes from R+1 on. Changes that arrive while
// emit runs, and within wait.Rest after it, are merged into the next snapshot. Watch survives the loss of etcd (it then
// emits no snapshot), a compaction, and an etcd that was emptied or restored from a backup.
// emit is called from a single goroutine. The error is ctx's.
func (r *Registry) Watch(ctx context.Context, emit func(subnet.Snapshot)) error {
	w := watcher{r: r, out: make(chan emission, 1), done: make(chan struct{}, 1)}
	ctx, stop := context.WithCancel(ctx)
	var emitting sync.WaitGroup
	emitting.Go(func() { w.emitAll(ctx, emit) })
	defer emitting.Wait()
	defer stop()
	return w.run(ctx)
}

// watcher follows the leases branch. It folds events while emit runs, and takes the next
// snapshot when emit has returned: a thousand joins at once do not make a thousand
// snapshots, however slow emit is.
type watcher struct {
	r    *Registry
	view *view
	news bool            // the view may say more than the last snapshot
	busy bool            // emit runs, or the rest after it
	any  bool            // whether a snapshot was emitted
	last subnet.Snapshot // as emitted, without Released

	out  chan emission // to emit; has room for a snapshot, and is empty unless busy
	done chan struct{} // emit has returned, and the rest is over
}

// emission is a snapshot to emit, and when the work for it began.
type emission struct {
	snapshot subnet.Snapshot
	began    time.Time
}

// emitAll calls emit for every snapshot until ctx ends.
func (w *watcher) emitAll(ctx context.Context, emit func(subnet.Snapshot)) {
	for {
		select {
		case <-ctx.Done():
			return
		case e := <-w.out:
			emit(e.snapshot)
			wait.For(ctx, wait.Rest(time.Since(e.began)))
			w.done <- struct{}{}
		}
	}
}

// offer emits the view if it says something new and emit is idle.
func (w *watcher) offer() {
	select {
	case <-w.done:
		w.busy = false
	default:
	}
	if w.busy || !w.news {
		return
	}
	w.news = false
	began := time.Now()
	s := w.view.snapshot()
	if w.any && s.Same(w.last) {
		return
	}
	w.out <- emission{s, began} // it has room: emit is idle
	w.busy, w.any, w.last = true, true, s
	w.last.Released = nil
}

func (w *watcher) run(ctx context.Context) error {
	attempts := backoff{}
	for ctx.Err() == nil {
		v, err := w.r.list(ctx)
		if err != nil {
			w.r.log.Debug().Err(err).Msg("listing leases again soon")
			attempts.pause(ctx)
			continue
		}
		attempts = backoff{}
		if w.view != nil {
			v.succeed(w.view)
		}
		w.view, w.news = v, true
		w.offer()
		err = w.follow(ctx)
		if ctx.Err() == nil && !errors.Is(err, errRelist) {
			w.r.log.Debug().Err(err).Msg("watch of leases ended")
		}
		spread(ctx, err, w.view.leases.Len())
	}
	return ctx.Err()
}

// follow folds events into the view until all leases must be listed again: at intervals
// for safety, when history was compacted away, or when etcd was replaced by another etcd. A
// watch that merely broke is resumed after the last revision seen.
func (w *watcher) follow(ctx context.Context) error {
	relist := time.NewTimer(jitter(w.r.opts.Relist))
	defer relist.Stop()
	probe := time.NewTicker(jitter(w.r.opts.Probe))
	defer probe.Stop()
	attempts := backoff{}
	for {
		began := time.Now()
		err := w.watch(ctx, relist.C, probe.C)
		attempts.rest(began)
		if ctx.Err() != nil || errors.Is(err, errRelist) {
			return err
		}
		w.r.log.Debug().Err(err).Msg("watch of leases broke, resuming")
		attempts.pause(ctx)
		// A plain request fetches a new token if an old token broke the watch.
		if err := w.check(ctx); errors.Is(err, errRelist) {
			return err
		}
	}
}

// watch runs a watch.
func (w *watcher) watch(ctx context.Context, relist, probe <-chan time.Time) error {
	ctx, cancel := context.WithCancel(clientv3.WithRequireLeader(ctx))
	defer cancel()
	etcd, err := w.r.dial()
	if err != nil {
		return err
	}
	events := etcd.Watch(ctx, w.view.branch, clientv3.WithPrefix(), clientv3.WithRev(w.view.revision+1),
		clientv3.WithProgressNotify(), clientv3.WithFragment())
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-w.done:
			w.busy = false
			w.offer()
		case <-relist:
			return errInTurn
		case <-probe:
			if err := w.check(ctx); errors.Is(err, errRelist) {
				return err
			}
		case resp, ok := <-events:
			news, err := w.drain(ctx, resp, ok, events)
			w.news = w.news || news
			w.offer()
			if err != nil {
				return err
			}
		}
	}
}

// drain folds a response and the responses that already wait behind it, so that a thousand
// joins at once do not make a thousand snapshots. It reports whether there were events.
func (w *watcher) drain(ctx context.Context, resp clientv3.WatchResponse, ok bool, events clientv3.WatchChan) (news bool, err error) {
	for {
		if !ok {
			return news, errors.New("watch closed")
		}
		if err := w.fold(ctx, resp); err != nil {
			return news, err
		}
		news = news || len(resp.Events) > 0
		select {
		case resp, ok = <-events:
		default:
			return news, nil
		}
	}
}

// fold folds a watch response into the view.
func (w *watcher) fold(ctx context.Context, resp clientv3.WatchResponse) error {
	v := w.view
	if resp.CompactRevision != 0 || resp.Header.ClusterId != 0 && resp.Header.ClusterId != v.cluster {
		return errRelist
	}
	if err := resp.Err(); err != nil {
		return w.r.failed(ctx, "watch leases", err)
	}
	if resp.Header.Revision < v.revision && !resp.IsProgressNotify() && len(resp.Events) > 0 {
		return errRelist // revisions of the same etcd never fall
	}
	for _, e := range resp.Events {
		v.fold(e)
	}
	v.revision = max(v.revision, resp.Header.Revision)
	w.r.health.seen(v.revision)
	return nil
}

// check asks etcd, cheaply, whether it is still the etcd that the view came from: a watch
// from a revision that an emptied or restored etcd has not reached yet stays silent.
func (w *watcher) check(ctx context.Context) error {
	same := true
	err := w.r.do(ctx, "probe etcd", func(ctx context.Context, etcd *clientv3.Client) error {
		resp, err := etcd.Get(ctx, w.r.keys.config(), clientv3.WithCountOnly())
		if err == nil {
			same = resp.Header.ClusterId == w.view.cluster && resp.Header.Revision >= w.view.revision
		}
		return err
	})
	if err == nil && !same {
		return errRelist
	}
	return err
}
