package etcd

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/loden-net/loden/subnet"
)

// errRelist ends following: what we hold may be wrong, so it is listed again.
var errRelist = errors.New("list again")

// Watch blocks until ctx ends and calls emit with every change, as a complete snapshot:
// first a list at some revision R, then what happens from R+1 on. It survives the loss of
// etcd (nothing is emitted meanwhile), a compaction, and an etcd that was emptied or
// restored from a backup. emit is called from one goroutine and holds up the next event.
// The error is that of ctx.
func (r *Registry) Watch(ctx context.Context, emit func(subnet.Snapshot)) error {
	var last subnet.Snapshot
	first := true
	changed := func(s subnet.Snapshot) {
		if first || !s.Same(last) {
			emit(s)
		}
		first, last = false, s
		last.Released = nil
	}
	wait := retry{}
	for ctx.Err() == nil {
		v, err := r.list(ctx)
		if err != nil {
			r.log.Debug().Err(err).Msg("listing leases again soon")
			wait.pause(ctx)
			continue
		}
		wait = retry{}
		changed(v.snapshot())
		if err := r.follow(ctx, v, changed); ctx.Err() == nil && !errors.Is(err, errRelist) {
			r.log.Debug().Err(err).Msg("watch of leases ended")
		}
	}
	return ctx.Err()
}

// follow folds events into v until everything must be listed again: now and then for
// safety, when history was compacted away, or when etcd is not the one it was. A watch
// that merely broke is resumed after the last revision seen.
func (r *Registry) follow(ctx context.Context, v *view, changed func(subnet.Snapshot)) error {
	relist := time.NewTimer(jitter(r.opts.Relist))
	defer relist.Stop()
	probe := time.NewTicker(jitter(r.opts.Probe))
	defer probe.Stop()
	wait := retry{}
	for {
		began := time.Now()
		err := r.watchOnce(ctx, v, changed, relist.C, probe.C)
		wait.rest(began)
		if ctx.Err() != nil || errors.Is(err, errRelist) {
			return err
		}
		r.log.Debug().Err(err).Msg("watch of leases broke, resuming")
		wait.pause(ctx)
		// A request of the plain kind fetches a new token if that is what broke the watch.
		if err := r.check(ctx, v); errors.Is(err, errRelist) {
			return err
		}
	}
}

// watchOnce runs one watch.
func (r *Registry) watchOnce(ctx context.Context, v *view, changed func(subnet.Snapshot), relist, probe <-chan time.Time) error {
	ctx, cancel := context.WithCancel(clientv3.WithRequireLeader(ctx))
	defer cancel()
	c, err := r.dial()
	if err != nil {
		return err
	}
	events := c.Watch(ctx, v.branch, clientv3.WithPrefix(), clientv3.WithRev(v.revision+1),
		clientv3.WithProgressNotify(), clientv3.WithFragment())
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-relist:
			return errRelist
		case <-probe:
			if err := r.check(ctx, v); errors.Is(err, errRelist) {
				return err
			}
		case resp, ok := <-events:
			news, err := r.drain(v, resp, ok, events)
			if news {
				changed(v.snapshot())
			}
			if err != nil {
				return err
			}
		}
	}
}

// drain folds a response and those that already wait behind it, so that a thousand joins
// at once do not make a thousand snapshots. It reports whether there were events.
func (r *Registry) drain(v *view, resp clientv3.WatchResponse, ok bool, events clientv3.WatchChan) (news bool, err error) {
	for {
		if !ok {
			return news, errors.New("watch closed")
		}
		if err := r.take(v, resp); err != nil {
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

// take folds one watch response.
func (r *Registry) take(v *view, resp clientv3.WatchResponse) error {
	if resp.CompactRevision != 0 || resp.Header.ClusterId != 0 && resp.Header.ClusterId != v.cluster {
		return errRelist
	}
	if err := resp.Err(); err != nil {
		return r.explain("watch leases", err)
	}
	if resp.Header.Revision < v.revision && !resp.IsProgressNotify() && len(resp.Events) > 0 {
		return errRelist // revisions never fall in one etcd
	}
	for _, e := range resp.Events {
		v.fold(e)
	}
	v.revision = max(v.revision, resp.Header.Revision)
	r.health.seen(v.revision)
	return nil
}

// check asks etcd, cheaply, whether it is still the one that v came from: a watch from a
// revision that an emptied or restored etcd has not reached yet says nothing at all.
func (r *Registry) check(ctx context.Context, v *view) error {
	same := true
	err := r.do(ctx, "probe etcd", func(ctx context.Context, c *clientv3.Client) error {
		resp, err := c.Get(ctx, r.keys.config(), clientv3.WithCountOnly())
		if err == nil {
			same = resp.Header.ClusterId == v.cluster && resp.Header.Revision >= v.revision
		}
		return err
	})
	if err == nil && !same {
		return errRelist
	}
	return err
}

// retry spaces attempts: 100 ms doubling to 5 s, each with jitter, so that a cluster does
// not come back in step.
type retry struct{ last time.Duration }

// rest starts over when what began at that moment went well for a while.
func (r *retry) rest(began time.Time) {
	if time.Since(began) > time.Minute {
		*r = retry{}
	}
}

// pause waits for the next attempt or the end of ctx.
func (r *retry) pause(ctx context.Context) {
	r.last = min(max(2*r.last, 100*time.Millisecond), 5*time.Second)
	t := time.NewTimer(jitter(r.last))
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}

// jitter returns 75 to 125 % of d.
func jitter(d time.Duration) time.Duration {
	return d*3/4 + rand.N(d/2+1) // spreads load, guards nothing
}
