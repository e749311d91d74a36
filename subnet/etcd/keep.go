package etcd

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc"

	"github.com/loden-net/loden/subnet"
)

// seconds returns the wished time to live, as etcd counts it.
func (r *Registry) seconds() int64 { return int64(math.Ceil(r.opts.TTL.Seconds())) }

// grant makes an etcd lease.
func (r *Registry) grant(ctx context.Context) (clientv3.LeaseID, error) {
	var id clientv3.LeaseID
	err := r.do(ctx, "grant lease", func(ctx context.Context, c *clientv3.Client) error {
		resp, err := c.Grant(ctx, r.seconds())
		if err == nil {
			id = resp.ID
		}
		return err
	})
	return id, err
}

// renew keeps an etcd lease alive and returns the time to live it was granted with, in
// seconds. It fails with rpctypes.ErrLeaseNotFound. The client's own KeepAliveOnce tries
// again without a pause while etcd is away, so this speaks the protocol itself.
func (r *Registry) renew(ctx context.Context, id clientv3.LeaseID) (int64, error) {
	var ttl int64
	err := r.do(ctx, "renew lease", func(ctx context.Context, c *clientv3.Client) error {
		stream, err := pb.NewLeaseClient(c.ActiveConnection()).LeaseKeepAlive(ctx, grpc.WaitForReady(true))
		if err != nil {
			return err
		}
		if err := stream.Send(&pb.LeaseKeepAliveRequest{ID: int64(id)}); err != nil {
			return err
		}
		resp, err := stream.Recv()
		if err != nil {
			return rpctypes.Error(err)
		}
		if ttl = resp.TTL; ttl <= 0 {
			return rpctypes.ErrLeaseNotFound
		}
		return stream.CloseSend()
	})
	return ttl, err
}

// revoke ends an etcd lease and deletes what hangs on it.
func (r *Registry) revoke(ctx context.Context, id clientv3.LeaseID) error {
	err := r.do(ctx, "revoke lease", func(ctx context.Context, c *clientv3.Client) error {
		_, err := c.Revoke(ctx, id)
		return err
	})
	if errors.Is(err, rpctypes.ErrLeaseNotFound) {
		return nil
	}
	return err
}

// giveUp takes back the etcd lease of an Acquire that came to nothing. If it cannot, the
// lease runs out by itself.
func (a *attempt) giveUp(ctx context.Context) {
	if a.lease != 0 {
		_ = a.r.revoke(context.WithoutCancel(ctx), a.lease)
	}
}

// Keep blocks until ctx ends or the lease is lost; then errors.Is(err, ErrLeaseLost). It
// renews the lease without writing it, and looks now and then, and at every event on its
// key, whether the store still says what this node wrote. While etcd is away it waits.
func (c *Claim) Keep(ctx context.Context) error {
	wait := retry{}
	for ctx.Err() == nil {
		began := time.Now()
		err := c.keepWatching(ctx)
		wait.rest(began)
		if errors.Is(err, ErrLeaseLost) {
			return err
		}
		if ctx.Err() == nil {
			c.r.log.Debug().Err(err).Msg("checking our lease again soon")
			wait.pause(ctx)
		}
	}
	return ctx.Err()
}

// keepWatching verifies and renews at once and at every tick, and verifies at every event.
func (c *Claim) keepWatching(ctx context.Context) error {
	ctx, cancel := context.WithCancel(clientv3.WithRequireLeader(ctx))
	defer cancel()
	at, err := c.verify(ctx)
	if err != nil {
		return err
	}
	if err := c.renew(ctx); err != nil {
		return err
	}
	client, err := c.r.dial()
	if err != nil {
		return err
	}
	events := client.Watch(ctx, c.key(), clientv3.WithRev(at+1))
	probe := time.NewTicker(jitter(min(c.r.opts.Probe, c.r.opts.TTL/4)))
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
				return c.r.explain("watch our lease", err)
			}
		}
		if _, err := c.verify(ctx); err != nil {
			return err
		}
		if time.Since(renewed) < c.r.renewEvery() {
			continue
		}
		if err := c.renew(ctx); err != nil {
			return err
		}
		renewed = time.Now()
	}
}

// renewEvery is a quarter of the time to live, but at most ten
// minutes: the lease then outlasts an outage of nearly its whole time, whenever it starts.
func (r *Registry) renewEvery() time.Duration { return min(r.opts.TTL/4, 10*time.Minute) }

func (c *Claim) key() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.r.keys.lease(c.store.leaf)
}

// renew keeps the etcd lease alive. A reservation has none.
func (c *Claim) renew(ctx context.Context) error {
	c.mu.Lock()
	id, leaf := c.store.etcdLease, c.store.leaf
	c.mu.Unlock()
	if id == 0 {
		return nil
	}
	_, err := c.r.renew(ctx, id)
	if errors.Is(err, rpctypes.ErrLeaseNotFound) {
		return fmt.Errorf("keep lease %s: %w: its time ran out", leaf, ErrLeaseLost)
	}
	return err
}

// verify asks whether the store still says what this node wrote, and returns the revision
// of the answer.
func (c *Claim) verify(ctx context.Context) (int64, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	resp, err := c.r.commit(ctx, "check our lease", c.owned(), nil, nil)
	if err != nil {
		return 0, err
	}
	if !resp.Succeeded {
		return 0, fmt.Errorf("keep lease %s: %w: expired, deleted or overwritten", c.store.leaf, ErrLeaseLost)
	}
	return resp.Header.Revision, nil
}

// owned returns the conditions that every write of this node rests on: lease and guards
// are there, unchanged, and ours. c.mu is held.
func (c *Claim) owned() []clientv3.Cmp {
	key := c.r.keys.lease(c.store.leaf)
	ifs := []clientv3.Cmp{
		clientv3.Compare(clientv3.CreateRevision(key), "=", c.store.create),
		clientv3.Compare(clientv3.ModRevision(key), "=", c.store.mod),
	}
	for _, k := range c.store.mine {
		if k == c.r.keys.node(c.store.lease.Node) {
			ifs = append(ifs, clientv3.Compare(clientv3.CreateRevision(k), ">", 0))
		} else {
			ifs = append(ifs, clientv3.Compare(clientv3.Value(k), "=", c.store.lease.Node))
		}
	}
	return ifs
}

// Update publishes other endpoints or another key for the same subnets. Only these two of
// want matter. It writes nothing if nothing differs. It fails with ErrLeaseLost when the
// lease is no longer ours.
func (c *Claim) Update(ctx context.Context, want subnet.Lease) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	next := c.store.lease
	next.Endpoints, next.Key = want.Endpoints, want.Key
	if next == c.store.lease {
		return nil
	}
	return c.put(ctx, next)
}

// put writes the lease and the node's key, if still owned. c.mu is held.
func (c *Claim) put(ctx context.Context, next subnet.Lease) error {
	h := c.store
	h.lease = next
	puts := []clientv3.Op{clientv3.OpPut(c.r.keys.lease(h.leaf), string(subnet.FormatValue(next)), clientv3.WithLease(h.etcdLease))}
	if node := c.r.keys.node(next.Node); slices.Contains(h.mine, node) {
		puts = append(puts, clientv3.OpPut(node, nodeOf(h).String(), clientv3.WithLease(h.etcdLease)))
	}
	resp, err := c.r.commit(ctx, "write lease "+h.leaf, c.owned(), puts, nil)
	if errors.Is(err, rpctypes.ErrLeaseNotFound) || err == nil && !resp.Succeeded {
		return fmt.Errorf("write lease %s: %w", h.leaf, ErrLeaseLost)
	}
	if err != nil {
		return err
	}
	h.mod = resp.Header.Revision
	c.store = h
	return nil
}

// Release gives the subnets back, in a way that tells watchers it is wanted. A reservation
// stays, waiting for its node. Giving back what is not held is no error.
func (c *Claim) Release(ctx context.Context) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	err := c.leave(ctx)
	if errors.Is(err, ErrLeaseLost) {
		return nil
	}
	return err
}

// leave is Release for a lease that must be as it was found. c.mu is held, or nobody else
// has c.
func (c *Claim) leave(ctx context.Context) error {
	next := c.store.lease
	if c.store.etcdLease == 0 {
		return c.put(ctx, subnet.Lease{Node: next.Node, Subnets: next.Subnets, Reserved: true})
	}
	next.Leaving = true
	if err := c.put(ctx, next); err != nil {
		return err
	}
	return c.drop(ctx)
}

// drop deletes all keys of the claim, if it is as it was found. The etcd lease, with
// nothing on it, runs out by itself when it cannot be revoked. c.mu is held, or nobody else
// has c.
func (c *Claim) drop(ctx context.Context) error {
	dels := []clientv3.Op{clientv3.OpDelete(c.r.keys.lease(c.store.leaf))}
	for _, k := range c.store.mine {
		dels = append(dels, clientv3.OpDelete(k))
	}
	resp, err := c.r.commit(ctx, "delete lease "+c.store.leaf, c.owned(), dels, nil)
	if err != nil {
		return err
	}
	if !resp.Succeeded {
		return fmt.Errorf("delete lease %s: %w", c.store.leaf, ErrLeaseLost)
	}
	if c.store.etcdLease != 0 && len(c.store.mine) > 0 { // flannel's own is left to flannel
		return c.r.revoke(ctx, c.store.etcdLease)
	}
	return nil
}
