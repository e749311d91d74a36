package etcd

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/loden-net/loden/subnet"
)

// An orphan is an owner key without a lease: an operator deleted leases with etcdctl, or a
// program wrote the key by itself. Its subnet is not claimed while another subnet is free,
// since its node may be cut off and come back. After the time to live of a lease it cannot
// be a living node's any more, and is taken over when no other subnet is left.

// ownerKey is an owner key in the store.
type ownerKey struct {
	subnet netip.Prefix
	node   string
	mod    int64
}

// orphan is an owner key without a lease.
type orphan struct {
	ownerKey
	old bool // it was seen for longer than a lease lives
}

// parseOwner reads an owner key; ok is false for a key that owns no subnet.
func parseOwner(keys layout, key string, value []byte, mod int64) (o ownerKey, ok bool) {
	subnets, err := subnet.ParseKey(strings.TrimPrefix(key, keys.owners()))
	if err != nil || subnets.Len() != 1 || len(value) > 300 {
		return o, false
	}
	for _, p := range subnets.All() {
		o = ownerKey{subnet: p, node: string(value), mod: mod}
	}
	return o, true
}

// withoutLease returns the owner keys whose subnet no lease has, sorted.
func withoutLease(owners []ownerKey, leases []subnet.Lease) []ownerKey {
	held := map[netip.Prefix]bool{}
	for _, l := range leases {
		for _, p := range l.Subnets.All() {
			held[p] = true
		}
	}
	out := slices.DeleteFunc(slices.Clone(owners), func(o ownerKey) bool { return held[o.subnet] })
	slices.SortFunc(out, func(a, b ownerKey) int { return a.subnet.Compare(b.subnet) })
	return out
}

// owners reads all owner keys at a revision.
func (r *Registry) owners(ctx context.Context, rev int64) ([]ownerKey, error) {
	var out []ownerKey
	err := r.pages(ctx, "read owner keys", r.keys.owners(), rev, func(resp *clientv3.GetResponse) {
		for _, kv := range resp.Kvs {
			if o, ok := parseOwner(r.keys, string(kv.Key), kv.Value, kv.ModRevision); ok && len(out) < 2*maxLeases {
				out = append(out, o)
			}
		}
	})
	return out, err
}

// age returns the orphans among owners, and remembers since when this registry sees them.
func (r *Registry) age(owners []ownerKey, leases []subnet.Lease, now time.Time) []orphan {
	r.mu.Lock()
	defer r.mu.Unlock()
	since := map[ownerKey]time.Time{}
	var out []orphan
	for _, o := range withoutLease(owners, leases) {
		first, seen := r.orphans[o]
		if !seen {
			first = now
		}
		since[o] = first
		out = append(out, orphan{o, now.Sub(first) >= r.opts.TTL})
	}
	r.orphans = since
	return out
}

// problem describes an orphan to an operator.
func (o ownerKey) problem(keys layout) subnet.Problem {
	return subnet.Problem{Object: printable(keys.owner(o.subnet)), Reason: fmt.Sprintf(
		"owner key of node %s without a lease keeps the subnet %s from other nodes: if that node is gone, `loden lease release %s`",
		printable(fmt.Sprintf("%.64s", o.node)), o.subnet, subnet.FormatSubnet(o.subnet))}
}
