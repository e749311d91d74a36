package etcd

import (
	"fmt"
	"slices"
	"strings"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"github.com/loden-net/loden/subnet"
)

// view is the leases branch of the store as last heard: a map that events are folded into.
// Every key under the branch has an entry, also a key that is no lease.
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
	id      etcdID
	problem string
}

// newRecord makes a record of a key and its value.
func newRecord(form string, kv *mvccpb.KeyValue) record {
	subnets, err := subnet.ParseKey(form)
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
	return record{lease: l, id: etcdID(kv.Lease)}
}

func newView(branch string) *view {
	return &view{branch: branch, entries: map[string]record{}, released: map[string]bool{}}
}

// fill takes a list of the whole branch.
func (v *view) fill(resp *clientv3.GetResponse) {
	v.cluster, v.revision = resp.Header.ClusterId, resp.Header.Revision
	for _, kv := range resp.Kvs {
		form := strings.TrimPrefix(string(kv.Key), v.branch)
		v.entries[form] = newRecord(form, kv)
	}
}

// fold applies one watch event.
func (v *view) fold(e *clientv3.Event) {
	form := strings.TrimPrefix(string(e.Kv.Key), v.branch)
	before, had := v.entries[form]
	if e.Type == mvccpb.DELETE {
		delete(v.entries, form)
		if had && before.lease.Leaving {
			v.released[form] = true
		}
		return
	}
	now := newRecord(form, e.Kv)
	v.entries[form] = now
	if had && !before.lease.Waiting() && now.lease.Waiting() {
		v.released[form] = true
	} else {
		delete(v.released, form)
	}
}

// snapshot returns the view as others see it, and starts a new list of the released.
func (v *view) snapshot() subnet.Snapshot {
	s := subnet.Snapshot{Revision: v.revision}
	for form, rec := range v.entries {
		switch {
		case rec.problem != "":
			s.Problems = append(s.Problems, subnet.Problem{Object: printable(v.branch + form), Reason: rec.problem})
		case !rec.lease.Waiting():
			s.Leases = append(s.Leases, rec.lease)
		}
	}
	for form := range v.released {
		s.Released = append(s.Released, form)
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
