package etcd

import (
	"context"
	"errors"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// keeper keeps a claim alive and notices its loss.
type keeper struct{ claim *Claim }

// run is Claim.Keep.
func (k keeper) run(ctx context.Context) error {
	attempts := backoff{}
	for ctx.Err() == nil {
		began := time.Now()
		err := k.watch(ctx)
		attempts.rest(began)
		if errors.Is(err, ErrLeaseLost) {
			return err
		}
		if ctx.Err() == nil {
			k.claim.r.log.Debug().Err(err).Msg("checking our lease again soon")
			attempts.pause(ctx)
		}
	}
	return ctx.Err()
}

// watch verifies and renews at once and at every tick, and verifies at every event.
func (k keeper) watch(ctx context.Context) error {
	ctx, cancel := context.WithCancel(clientv3.WithRequireLeader(ctx))
	defer cancel()
	at, err := k.claim.verify(ctx)
	if err != nil {
		return err
	}
	if err := k.claim.renew(ctx); err != nil {
		return err
	}
	r := k.claim.r
	etcd, err := r.dial()
	if err != nil {
		return err
	}
	events := etcd.Watch(ctx, k.claim.key(), clientv3.WithRev(at+1))
	probe := time.NewTicker(jitter(min(r.opts.Probe, r.opts.TTL/4)))
	defer probe.Stop()
	renewed := time.Now()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-probe.C:
		case resp, ok := <-events:
			if !ok {
				return errors.New("watch closed")
			}
			if err := resp.Err(); err != nil {
				return r.failed(ctx, "watch our lease", err)
			}
		}
		if _, err := k.claim.verify(ctx); err != nil {
			return err
		}
		if time.Since(renewed) < renewEvery(r.opts.TTL) {
			continue
		}
		if err := k.claim.renew(ctx); err != nil {
			return err
		}
		renewed = time.Now()
	}
}

// renewEvery returns how often a lease is renewed: after a quarter of its time to live, but
// at most ten minutes. The lease then outlasts an outage of nearly its whole time, whenever
// the outage starts.
func renewEvery(ttl time.Duration) time.Duration { return min(ttl/4, 10*time.Minute) }
