package etcd

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"github.com/loden-net/loden/subnet"
)

// Claim is this node's lease in the store. It is safe for concurrent use.
type Claim struct {
	r *Registry

	mu    sync.Mutex // guards what follows, across a request that reads or writes the lease
	store held
}

// Lease returns the lease as it stands in the store, as far as this node knows.
func (c *Claim) Lease() subnet.Lease {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.store.lease
}

// try makes one attempt to claim what choose says.
func (a *attempt) try(ctx context.Context, try int) (*Claim, error) {
	subnets, err := a.choose(try)
	if err != nil {
		return nil, fmt.Errorf("acquire lease: %w", err)
	}
	h := held{leaf: subnet.FormatKey(subnets), lease: a.want}
	h.lease.Subnets, h.lease.Leaving, h.lease.Claimed = subnets, false, now()
	if own, ok := a.own.Get(); ok {
		return a.resume(ctx, own, h)
	}
	if a.lease == 0 {
		if a.lease, err = a.r.grant(ctx); err != nil {
			return nil, err
		}
	}
	h.etcdLease = a.lease
	return a.write(ctx, h)
}

// resume takes up a lease that this node already has: as it is if it is right, written
// anew where not. A reservation stays one.
func (a *attempt) resume(ctx context.Context, own, h held) (*Claim, error) {
	h.etcdLease, h.lease.Reserved = own.etcdLease, own.etcdLease == 0
	if own.leaf == h.leaf && own.lease.Claimed != 0 && own.lease.Key != (wgtypes.Key{}) {
		h.lease.Claimed = own.lease.Claimed
	}
	fresh := true
	if own.etcdLease != 0 {
		ttl, err := a.r.renew(ctx, own.etcdLease)
		if errors.Is(err, rpctypes.ErrLeaseNotFound) {
			return nil, fmt.Errorf("resume lease: %w", errRace)
		}
		if err != nil {
			return nil, err
		}
		if fresh = ttl == a.r.seconds(); !fresh {
			if a.lease == 0 {
				if a.lease, err = a.r.grant(ctx); err != nil {
					return nil, err
				}
			}
			h.etcdLease = a.lease
		}
	}
	same := h.lease
	same.Since = own.lease.Since
	if fresh && own.leaf == h.leaf && !own.broken && same == own.lease && a.guarded(h) {
		h.create, h.mod, h.mine = own.create, own.mod, a.r.keys.mine(h.lease)
		h.lease.Since = own.create
		return &Claim{r: a.r, store: h}, nil
	}
	return a.write(ctx, h)
}

// guarded reports whether all guards of h, and the node's key, were found in place.
func (a *attempt) guarded(h held) bool {
	for _, g := range a.r.keys.guards(h.lease.Subnets) {
		if a.seen[g] == 0 {
			return false
		}
	}
	return a.nodeMod != 0 && a.node == nodeOf(h)
}

func nodeOf(h held) nodeRecord {
	n := nodeRecord{Lease: h.leaf}
	if h.lease.Key != (wgtypes.Key{}) {
		n.PublicKey = h.lease.Key.String()
	}
	return n
}

// String returns the record as it stands in the store.
func (n nodeRecord) String() string {
	data, _ := json.Marshal(n) // two strings: it cannot fail
	return string(data)
}
