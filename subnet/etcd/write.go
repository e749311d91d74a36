package etcd

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/loden-net/loden/config/opt"
	"github.com/loden-net/loden/subnet"
)

// write puts the lease, its guards and the node's key in one transaction, if nothing that
// it rests on has changed.
func (a *attempt) write(ctx context.Context, h held) (*Claim, error) {
	k := a.r.keys
	put := func(key, value string) clientv3.Op {
		return clientv3.OpPut(key, value, clientv3.WithLease(h.etcdLease))
	}
	thens := []clientv3.Op{
		put(k.lease(h.leaf), string(subnet.FormatValue(h.lease))),
		put(k.node(a.want.Node), nodeOf(h).String()),
	}
	for _, g := range k.guards(h.lease.Subnets) {
		thens = append(thens, put(g, a.want.Node))
	}
	thens = append(thens, a.leave(h)...)
	ifs, elses := a.conditions(h)
	thens = append(thens, clientv3.OpGet(k.lease(h.leaf), clientv3.WithKeysOnly()))
	mineAt := len(thens) - 1
	if a.foreign { // costs etcd a walk over all leases, so only beside flannel's nodes
		thens = append(thens, clientv3.OpGet(k.leases(), clientv3.WithPrefix(), clientv3.WithKeysOnly(), clientv3.WithMinCreateRev(a.revision+1)))
	}
	resp, err := a.r.commit(ctx, "write lease "+h.leaf, ifs, thens, elses)
	if errors.Is(err, rpctypes.ErrLeaseNotFound) { // granted long ago, or etcd was emptied just now
		a.lease, a.lessons = 0, 0
		return nil, fmt.Errorf("write lease %s: %w", h.leaf, errRace)
	}
	if err != nil {
		return nil, err
	}
	if !resp.Succeeded {
		a.learn(resp)
		return nil, fmt.Errorf("write lease %s: %w", h.leaf, errRace)
	}
	mine := resp.Responses[mineAt].GetResponseRange().GetKvs()[0] // just written in this transaction
	h.create, h.mod, h.mine = mine.CreateRevision, mine.ModRevision, k.mine(h.lease)
	h.lease.Since = h.create
	c := &Claim{r: a.r, store: h}
	if a.foreign && overtaken(k, h, resp.Responses[mineAt+1].GetResponseRange().GetKvs()) {
		a.lessons = 0 // look again: what is in the way is new
		return nil, errors.Join(fmt.Errorf("write lease %s: %w", h.leaf, errRace), c.drop(ctx))
	}
	return c, nil
}

// leave returns the deletions of what this node held and no longer will.
func (a *attempt) leave(h held) []clientv3.Op {
	var out []clientv3.Op
	if own, ok := a.own.Get(); ok && own.leaf != h.leaf {
		out = append(out, clientv3.OpDelete(a.r.keys.lease(own.leaf)))
	}
	keep := a.r.keys.guards(h.lease.Subnets)
	for g := range a.seen {
		if !slices.Contains(keep, g) {
			out = append(out, clientv3.OpDelete(g))
		}
	}
	return out
}

// conditions returns what must still be so for h to be written, and what to read when it
// is not.
func (a *attempt) conditions(h held) (ifs []clientv3.Cmp, elses []clientv3.Op) {
	k := a.r.keys
	unchanged := func(key string, mod int64) {
		ifs = append(ifs, clientv3.Compare(clientv3.ModRevision(key), "=", mod)) // 0: absent
		elses = append(elses, clientv3.OpGet(key))
	}
	unchanged(k.node(a.want.Node), a.nodeMod)
	for _, g := range k.guards(h.lease.Subnets) {
		unchanged(g, a.seen[g])
	}
	own, resumed := a.own.Get()
	if resumed {
		unchanged(k.lease(own.leaf), own.mod)
	}
	if !resumed || own.leaf != h.leaf {
		unchanged(k.lease(h.leaf), 0)
	}
	// A flannel node may have written a lease with this IPv4 subnet since the survey, and
	// it writes no guards. IPv4 comes first in the key, so a range can be compared.
	p, ok := h.lease.Subnets.V4.Get()
	if ok && (!resumed || own.lease.Subnets.V4 != opt.Some(p)) {
		branch := k.lease(subnet.FormatSubnet(p))
		ifs = append(ifs, clientv3.Compare(clientv3.CreateRevision(branch).WithPrefix(), "=", 0))
		elses = append(elses, clientv3.OpGet(branch, clientv3.WithPrefix(), clientv3.WithKeysOnly()))
	}
	return ifs, elses
}

// learn takes from a refused transaction what was in the way.
func (a *attempt) learn(resp *clientv3.TxnResponse) {
	for _, one := range resp.Responses {
		for _, kv := range one.GetResponseRange().GetKvs() {
			a.learnKey(string(kv.Key), kv)
		}
	}
}

func (a *attempt) learnKey(key string, kv *mvccpb.KeyValue) {
	k := a.r.keys
	leaf, isLease := strings.CutPrefix(key, k.leases())
	guarded, isGuard := strings.CutPrefix(key, k.prefix+"/guards/")
	switch {
	case isLease:
		if own, ok := a.own.Get(); ok && own.leaf == leaf {
			return // ours, changed: only a survey helps
		}
	case isGuard && string(kv.Value) == a.want.Node:
		a.seen[key] = kv.ModRevision
		a.lessons++
		return
	case isGuard:
		leaf = guarded
	default:
		return
	}
	if subnets, err := subnet.ParseKey(leaf); err == nil {
		a.taken = append(a.taken, subnet.Lease{Subnets: subnets})
		a.lessons++
	}
}

// overtaken reports whether one of the keys is an older lease, of a node that writes no
// guards, over one of h's subnets.
func overtaken(k layout, h held, kvs []*mvccpb.KeyValue) bool {
	for _, kv := range kvs {
		leaf := strings.TrimPrefix(string(kv.Key), k.leases())
		subnets, err := subnet.ParseKey(leaf)
		if err != nil || leaf == h.leaf || kv.CreateRevision > h.create {
			continue
		}
		for f, p := range h.lease.Subnets.All() {
			if other, ok := subnets.Of(f).Get(); ok && other.Overlaps(p) {
				return true
			}
		}
	}
	return false
}
