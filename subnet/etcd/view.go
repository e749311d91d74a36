package etcd

import (
	"fmt"
	"hash/fnv"
	"maps"
	"slices"
	"strings"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"github.com/loden-net/loden/config/sorted"
	"github.com/loden-net/loden/subnet"
)

// view is the leases branch of the store as last heard. Events are folded into it one by one, and
// a snapshot of it costs only the keys that changed since the snapshot before. Every key under
// the branch has an entry, also a key that is no lease.
type view struct {
	cluster   uint64 // etcd's cluster id; another id means another etcd
	revision  int64
	branch    string // the prefix of all keys
	entries   map[string]entry
	leases    subnet.Leases     // of the entries that are leases
	waiting   subnet.Leases     // of the entries that are reservations which wait for their node
	problems  map[string]string // why an entry is no lease, by its form
	told      []subnet.Problem  // problems as the last snapshot has them; nil after a change
	untracked int               // how many keys the view has no room for, since the last list
	released  map[string]bool   // keys of leases that left in an orderly way since the last snapshot

	listed struct{ leases, waiting []subnet.Lease } // between fill and filled
}

// entry is a key with a lease, a reservation that waits, or a problem.
type entry struct {
	kind  entryKind
	since int64 // of the lease
	id    etcdID
}

type entryKind uint8

const (
	absent entryKind = iota // no entry
	held                    // a lease
	waits                   // a reservation that waits for its node
	faulty                  // a key or value that is no lease
)

// record is a key and its value, read.
type record struct {
	lease   subnet.Lease
	id      etcdID
	problem string // why it is no lease; "" for a lease
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

// kind returns the kind of the record's entry.
func (r record) kind() entryKind {
	switch {
	case r.problem != "":
		return faulty
	case r.lease.Waiting():
		return waits
	}
	return held
}

// place returns a lease with the place of the form's lease in the lists.
func place(form string, since int64) subnet.Lease {
	subnets, _ := subnet.ParseKey(form) // the forms of leases were read before
	return subnet.Lease{Subnets: subnets, Since: since}
}

func newView(branch string) *view {
	return &view{branch: branch, entries: map[string]entry{}, problems: map[string]string{}, released: map[string]bool{}}
}

// fill takes a page of the list of the whole branch.
func (v *view) fill(resp *clientv3.GetResponse) {
	if v.revision == 0 {
		v.cluster, v.revision = resp.Header.ClusterId, resp.Header.Revision
	}
	for _, kv := range resp.Kvs {
		form := v.form(kv)
		rec := newRecord(form, kv)
		switch v.enter(form, rec) {
		case held:
			v.listed.leases = append(v.listed.leases, rec.lease)
		case waits:
			v.listed.waiting = append(v.listed.waiting, rec.lease)
		}
	}
}

// filled says that all pages have been taken.
func (v *view) filled() {
	v.leases, v.waiting = sorted.Of(v.listed.leases...), sorted.Of(v.listed.waiting...)
	v.listed.leases, v.listed.waiting = nil, nil
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

// enter makes an entry for a key that has none, or counts the key when the view is full. The
// lease itself is for the caller to add. It returns the kind of the entry.
func (v *view) enter(form string, rec record) entryKind {
	e := entry{kind: rec.kind(), since: rec.lease.Since, id: rec.id}
	if e.kind == faulty && len(v.problems) >= maxProblems || e.kind != faulty && len(v.entries)-len(v.problems) >= maxLeases {
		v.untracked++
		return absent
	}
	v.entries[form] = e
	if e.kind == faulty {
		v.problems[form], v.told = rec.problem, nil
	}
	return e.kind
}

// remove deletes an entry with its lease, if it is there, and returns both.
func (v *view) remove(form string) (e entry, l subnet.Lease) {
	e = v.entries[form]
	delete(v.entries, form)
	switch e.kind {
	case held:
		l, _ = v.leases.Find(place(form, e.since))
		v.leases = v.leases.Without(l)
	case waits:
		l, _ = v.waiting.Find(place(form, e.since))
		v.waiting = v.waiting.Without(l)
	case faulty:
		delete(v.problems, form)
		v.told = nil
	}
	return e, l
}

// fold applies a watch event.
func (v *view) fold(e *clientv3.Event) {
	form := v.form(e.Kv)
	before, lease := v.remove(form)
	if e.Type == mvccpb.DELETE {
		if before.kind == absent && v.untracked > 0 {
			v.untracked--
		}
		if lease.Leaving {
			v.released[form] = true
		}
		return
	}
	rec := newRecord(form, e.Kv)
	now := v.enter(form, rec)
	switch now {
	case held:
		v.leases = v.leases.With(rec.lease)
	case waits:
		v.waiting = v.waiting.With(rec.lease)
	}
	if now == waits && (before.kind == held || before.kind == faulty) {
		v.released[form] = true
	} else {
		delete(v.released, form)
	}
}

// succeed makes v, which was listed anew, share memory with the view before it, and keeps the
// releases that no snapshot has told yet.
func (v *view) succeed(before *view) {
	v.leases, v.waiting = v.leases.Onto(before.leases), v.waiting.Onto(before.waiting)
	maps.Copy(v.released, before.released)
}

// snapshot returns the view as consumers see it, and starts a new list of the released.
func (v *view) snapshot() subnet.Snapshot {
	if v.told == nil {
		v.told = v.listProblems()
	}
	s := subnet.Snapshot{Revision: v.revision, Leases: v.leases, Problems: v.told}
	if v.untracked > 0 {
		s.Problems = append([]subnet.Problem{{Object: v.branch, Reason: fmt.Sprintf(
			"the branch holds at least %d further keys, more than are read (%d leases, and %d keys that are no lease): delete the keys that are no lease", v.untracked, maxLeases, maxProblems)}}, s.Problems...)
	}
	s.Released = slices.Sorted(maps.Keys(v.released))
	clear(v.released)
	return s
}

// listProblems returns the keys that are no lease, sorted.
func (v *view) listProblems() []subnet.Problem {
	out := make([]subnet.Problem, 0, len(v.problems))
	for form, reason := range v.problems {
		out = append(out, subnet.Problem{Object: printable(v.branch + form), Reason: reason})
	}
	slices.SortFunc(out, func(a, b subnet.Problem) int { return strings.Compare(a.Object, b.Object) })
	return out
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
