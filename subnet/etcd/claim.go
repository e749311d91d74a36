package etcd

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"

	"github.com/loden-net/loden/config/opt"
	"github.com/loden-net/loden/subnet"
)

// Claim is this node's lease in the store. It is safe for concurrent use.
type Claim struct {
	r *Registry

	mu    sync.Mutex // guards the field below, across a request that reads or writes the lease
	store stored
}

// Lease returns the lease as it stands in the store, as far as this node knows.
func (c *Claim) Lease() subnet.Lease {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.store.lease
}

// Keep blocks until ctx ends or the lease is lost; then errors.Is(err, ErrLeaseLost). It
// renews the lease without writing it, and checks at intervals, and at every event on its
// key, whether the store still has this node's lease as written. While etcd is away it waits.
func (c *Claim) Keep(ctx context.Context) error { return keeper{c}.run(ctx) }

// Update publishes other endpoints or another key for the same subnets. No other field of
// want matters. It writes no key if none differs. It fails with ErrLeaseLost when the lease
// is no longer ours.
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

// Release gives the subnets back, in a way that tells watchers it is wanted. A reservation
// stays, waiting for its node. Release of a lease that is no longer held succeeds.
func (c *Claim) Release(ctx context.Context) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	err := c.leave(ctx)
	if errors.Is(err, ErrLeaseLost) {
		return nil
	}
	return err
}

// leave is Release for a lease that must be as it was found. c.mu is held, or c is not
// shared yet.
func (c *Claim) leave(ctx context.Context) error {
	next := c.store.lease
	if c.store.orphan {
		return c.drop(ctx)
	}
	if c.store.id == forGood {
		return c.put(ctx, subnet.Lease{Node: next.Node, Subnets: next.Subnets, Reserved: true})
	}
	next.Leaving = true
	if err := c.put(ctx, next); err != nil {
		return err
	}
	return c.drop(ctx)
}

// drop deletes all keys of the claim, if it is as it was found. The etcd lease, on which no
// key hangs any more, runs out by itself when it cannot be revoked. c.mu is held, or c is
// not shared yet.
func (c *Claim) drop(ctx context.Context) error {
	t := transaction{what: "delete lease " + c.store.form, conditions: c.owned()}
	t.deletes = append([]string{c.r.keys.lease(c.store.form)}, c.store.named...)
	resp, err := c.r.commit(ctx, t, forGood)
	if err != nil {
		return err
	}
	if !resp.Succeeded {
		return fmt.Errorf("%s: %w", t.what, ErrLeaseLost)
	}
	if c.store.id != forGood && len(c.store.named) > 0 { // the etcd lease of a flannel node is left to flannel
		return c.r.revoke(ctx, c.store.id)
	}
	return nil
}

// put writes the lease and the node's record, if still owned. c.mu is held.
func (c *Claim) put(ctx context.Context, next subnet.Lease) error {
	l := c.store
	l.lease = next
	t := transaction{what: "write lease " + l.form, conditions: c.owned(), hangs: opt.Some(l.id)}
	t.puts = []put{{c.r.keys.lease(l.form), string(subnet.FormatValue(next))}}
	if node := c.r.keys.node(next.Node); slices.Contains(l.named, node) {
		t.puts = append(t.puts, put{node, recordOf(l.form, next).String()})
	}
	resp, err := c.r.commit(ctx, t, l.id)
	if errors.Is(err, rpctypes.ErrLeaseNotFound) || err == nil && !resp.Succeeded {
		return fmt.Errorf("%s: %w", t.what, ErrLeaseLost)
	}
	if err != nil {
		return err
	}
	l.mod = resp.Header.Revision
	c.store = l
	return nil
}

// verify asks whether the store still has the lease as this node wrote it, and returns the revision
// of the answer.
func (c *Claim) verify(ctx context.Context) (int64, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	resp, err := c.r.commit(ctx, transaction{what: "check our lease", conditions: c.owned()}, forGood)
	if err != nil {
		return 0, err
	}
	if !resp.Succeeded {
		return 0, fmt.Errorf("keep lease %s: %w: expired, deleted or overwritten", c.store.form, ErrLeaseLost)
	}
	return resp.Header.Revision, nil
}

// renew keeps the etcd lease alive. A reservation has none.
func (c *Claim) renew(ctx context.Context) error {
	c.mu.Lock()
	id, form := c.store.id, c.store.form
	c.mu.Unlock()
	if id == forGood {
		return nil
	}
	_, err := c.r.renew(ctx, id)
	if errors.Is(err, rpctypes.ErrLeaseNotFound) {
		return fmt.Errorf("keep lease %s: %w: its time ran out", form, ErrLeaseLost)
	}
	return err
}

// key returns the lease's key in the store.
func (c *Claim) key() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.r.keys.lease(c.store.form)
}

// owned returns the conditions of every write of this node: lease and owner keys are there,
// unchanged, and ours. c.mu is held.
func (c *Claim) owned() []condition {
	key := c.r.keys.lease(c.store.form)
	if c.store.orphan {
		return []condition{{key: key}, {key: c.store.named[0], rev: c.store.mod}}
	}
	ifs := []condition{{key: key, kind: created, rev: c.store.create}, {key: key, rev: c.store.mod}}
	for _, k := range c.store.named {
		if k == c.r.keys.node(c.store.lease.Node) {
			ifs = append(ifs, condition{key: k, kind: exists})
		} else {
			ifs = append(ifs, condition{key: k, kind: says, text: c.store.lease.Node})
		}
	}
	return ifs
}
