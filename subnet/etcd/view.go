package etcd

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"github.com/loden-net/loden/subnet"
)

// view is the leases branch of the store as last heard: a map that events are folded into.
// Every key under it has an entry, also those that are no lease.
type view struct {
	cluster  uint64 // etcd's cluster id; another one means another etcd
	revision int64
	branch   string // the prefix of all keys
	entries  map[string]record
	released map[string]bool // keys of leases that left in an orderly way since the last snapshot
}

// record is one key: a lease, a reservation that waits, or a problem.
type record struct {
	lease   subnet.Lease
	problem string
}

// read makes a record of a key and its value.
func read(leaf string, kv *mvccpb.KeyValue) record {
	subnets, err := subnet.ParseKey(leaf)
	if err != nil {
		return record{problem: err.Error()}
	}
	l, err := subnet.ParseValue(subnets, kv.Value)
	if err != nil {
		return record{problem: err.Error()}
	}
	l.Since = kv.CreateRevision
	l.Reserved = kv.Lease == 0
	if l.Key == (wgtypes.Key{}) && !l.Reserved {
		return record{problem: "lease has no public key"}
	}
	return record{lease: l}
}

func newView(branch string) *view {
	return &view{branch: branch, entries: map[string]record{}, released: map[string]bool{}}
}

// fill takes a list of the whole branch.
func (v *view) fill(resp *clientv3.GetResponse) {
	v.cluster, v.revision = resp.Header.ClusterId, resp.Header.Revision
	for _, kv := range resp.Kvs {
		leaf := strings.TrimPrefix(string(kv.Key), v.branch)
		v.entries[leaf] = read(leaf, kv)
	}
}

// list reads the whole branch in one request.
func (r *Registry) list(ctx context.Context) (*view, error) {
	v, _, err := r.listWithIDs(ctx)
	if err != nil {
		return nil, err
	}
	r.health.listed(v.revision)
	return v, nil
}

// fold applies one watch event.
func (v *view) fold(e *clientv3.Event) {
	leaf := strings.TrimPrefix(string(e.Kv.Key), v.branch)
	before, had := v.entries[leaf]
	if e.Type == mvccpb.DELETE {
		delete(v.entries, leaf)
		if had && before.lease.Leaving {
			v.released[leaf] = true
		}
		return
	}
	now := read(leaf, e.Kv)
	v.entries[leaf] = now
	if had && !before.lease.Waiting() && now.lease.Waiting() {
		v.released[leaf] = true
	} else {
		delete(v.released, leaf)
	}
}

// snapshot returns the view as others see it, and starts a new list of the released.
func (v *view) snapshot() subnet.Snapshot {
	s := subnet.Snapshot{Revision: v.revision}
	for leaf, rec := range v.entries {
		switch {
		case rec.problem != "":
			s.Problems = append(s.Problems, subnet.Problem{Object: printable(v.branch + leaf), Reason: rec.problem})
		case !rec.lease.Waiting():
			s.Leases = append(s.Leases, rec.lease)
		}
	}
	for leaf := range v.released {
		s.Released = append(s.Released, leaf)
	}
	clear(v.released)
	slices.SortFunc(s.Leases, subnet.Older)
	slices.SortFunc(s.Problems, func(a, b subnet.Problem) int { return strings.Compare(a.Object, b.Object) })
	slices.Sort(s.Released)
	return s
}

// printable makes a key from the store fit for a terminal and a log.
func printable(key string) string {
	const limit = 300
	if len(key) > limit {
		key = key[:limit] + "..."
	}
	quoted := fmt.Sprintf("%q", key)
	return quoted[1 : len(quoted)-1]
}
