package etcd

import (
	"fmt"
	"hash/fnv"
	"slices"
	"strings"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"github.com/loden-net/loden/config/sorted"
	"github.com/loden-net/loden/subnet"
)

// view is the leases branch of the store as last heard: a map that events are folded into.
// Every key under the branch has an entry, also a key that is no lease.
type view struct {
	cluster   uint64 // etcd's cluster id; another id means another etcd
	revision  int64
	branch    string // the prefix of all keys
	entries   map[string]record
	problems  int             // how many entries are problems
	untracked int             // how many keys the view has no room for, since the last list
	released  map[string]bool // keys of leases that left in an orderly way since the last snapshot
}

// record is a key: a lease, a reservation that waits, or a problem.
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

// fill takes a page of the list of the whole branch.
func (v *view) fill(resp *clientv3.GetResponse) {
	if v.revision == 0 {
		v.cluster, v.revision = resp.Header.ClusterId, resp.Header.Revision
	}
	for _, kv := range resp.Kvs {
		form := v.form(kv)
		v.set(form, newRecord(form, kv))
	}
}

// The bounds of a view. The branch may hold any number of keys, and of any length.
const (
	maxLeases   = 1 << 16 // a /8 cut into /24s
	maxProblems = 10_000
	maxForm     = 120 // bytes; the longest key form of a lease has 62
)

// form returns the name of a key in the view: its key form, shortened if it is longer than
// any lease's.
func (v *view) form(kv *mvccpb.KeyValue) string {
	form := strings.TrimPrefix(string(kv.Key), v.branch)
	if len(form) <= maxForm {
		return form
	}
	h := fnv.New64a()
	_, _ = h.Write(kv.Key) // a hash never fails to write
	return fmt.Sprintf("%s... (%d bytes, %016x)", form[:maxForm/2], len(form), h.Sum64())
}

// set adds or replaces an entry, or counts it when the view is full.
func (v *view) set(form string, rec record) {
	v.remove(form)
	if rec.problem != "" && v.problems >= maxProblems || rec.problem == "" && len(v.entries)-v.problems >= maxLeases {
		v.untracked++
		return
	}
	if rec.problem != "" {
		v.problems++
	}
	v.entries[form] = rec
}

// remove deletes an entry, if it is there.
func (v *view) remove(form string) {
	rec, ok := v.entries[form]
	if !ok {
		return
	}
	if rec.problem != "" {
		v.problems--
	}
	delete(v.entries, form)
}

// fold applies a watch event.
func (v *view) fold(e *clientv3.Event) {
	form := v.form(e.Kv)
	before, had := v.entries[form]
	if e.Type == mvccpb.DELETE {
		if !had && v.untracked > 0 {
			v.untracked--
		}
		v.remove(form)
		if had && before.lease.Leaving {
			v.released[form] = true
		}
		return
	}
	now := newRecord(form, e.Kv)
	v.set(form, now)
	if had && !before.lease.Waiting() && now.lease.Waiting() {
		v.released[form] = true
	} else {
		delete(v.released, form)
	}
}

// snapshot returns the view as consumers see it, and starts a new list of the released.
func (v *view) snapshot() subnet.Snapshot {
	s := subnet.Snapshot{Revision: v.revision}
	var leases []subnet.Lease
	for form, rec := range v.entries {
		switch {
		case rec.problem != "":
			s.Problems = append(s.Problems, subnet.Problem{Object: printable(v.branch + form), Reason: rec.problem})
		case !rec.lease.Waiting():
			leases = append(leases, rec.lease)
		}
	}
	if v.untracked > 0 {
		s.Problems = append(s.Problems, subnet.Problem{Object: v.branch, Reason: fmt.Sprintf(
			"the branch holds at least %d further keys, more than are read (%d leases, and %d keys that are no lease): delete the keys that are no lease", v.untracked, maxLeases, maxProblems)})
	}
	for form := range v.released {
		s.Released = append(s.Released, form)
	}
	clear(v.released)
	s.Leases = sorted.Of(leases...)
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
