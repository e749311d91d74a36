package etcd

import (
	"slices"
	"strings"

	"go.etcd.io/etcd/api/v3/mvccpb"
)

// fakeStore is a slow obvious model of the part of etcd that the lease protocol uses: keys
// with revisions, and transactions with conditions.
type fakeStore struct {
	revision int64
	keys     map[string]*mvccpb.KeyValue
}

func newFakeStore() *fakeStore { return &fakeStore{keys: map[string]*mvccpb.KeyValue{}} }

func (f *fakeStore) put(key, value string, id etcdID, revision int64) {
	created := revision
	if old, ok := f.keys[key]; ok {
		created = old.CreateRevision
	}
	f.keys[key] = &mvccpb.KeyValue{Key: []byte(key), Value: []byte(value), CreateRevision: created, ModRevision: revision, Lease: int64(id)}
	f.revision = max(f.revision, revision)
}

// get returns the keys with a prefix, sorted.
func (f *fakeStore) get(prefix string) []*mvccpb.KeyValue {
	var out []*mvccpb.KeyValue
	for key, kv := range f.keys {
		if strings.HasPrefix(key, prefix) {
			out = append(out, kv)
		}
	}
	slices.SortFunc(out, func(a, b *mvccpb.KeyValue) int { return strings.Compare(string(a.Key), string(b.Key)) })
	return out
}

func (f *fakeStore) holds(c condition) bool {
	kv := f.keys[c.key]
	if kv == nil {
		kv = &mvccpb.KeyValue{}
	}
	switch c.kind {
	case created:
		return kv.CreateRevision == c.rev
	case exists:
		return kv.CreateRevision > 0
	case says:
		return kv.CreateRevision > 0 && string(kv.Value) == c.text
	case noneBelow:
		return len(f.get(c.key)) == 0
	case unchanged:
		return !slices.ContainsFunc(f.get(c.key), func(kv *mvccpb.KeyValue) bool { return kv.ModRevision > c.rev })
	default:
		return kv.ModRevision == c.rev
	}
}

// commit runs a transaction. When a condition does not hold it writes no key and returns
// the keys that the transaction reads then.
func (f *fakeStore) commit(t transaction, id etcdID) (conflicts []*mvccpb.KeyValue, ok bool) {
	ok = true
	for _, c := range t.conditions {
		ok = ok && f.holds(c)
		if _, reads := c.conflict(); !reads {
			continue
		}
		if c.kind == noneBelow {
			conflicts = append(conflicts, f.get(c.key)...)
		} else if kv := f.keys[c.key]; kv != nil {
			conflicts = append(conflicts, kv)
		}
	}
	if !ok {
		return conflicts, false
	}
	revision := f.revision + 1
	for _, p := range t.puts {
		f.put(p.key, p.value, id, revision)
	}
	for _, key := range t.deletes {
		delete(f.keys, key)
		f.revision = revision
	}
	return nil, true
}

// survey reads the keys that a registry reads.
func (f *fakeStore) survey(keys layout, want Want, granted map[etcdID]int64) survey {
	s := newSurvey(keys, want)
	s.revision = f.revision
	if kv := f.keys[keys.node(want.Lease.Node)]; kv != nil {
		s.add(kv)
	}
	for _, kv := range f.get(keys.leases()) {
		s.add(kv)
	}
	for _, key := range s.questions() {
		if kv := f.keys[key]; kv != nil {
			s.add(kv)
		}
	}
	for id, seconds := range granted {
		s.setGranted(id, seconds)
	}
	return s
}

// orphans returns the owner keys without a lease.
func (f *fakeStore) orphans(keys layout, s survey, old bool) []orphan {
	var owners []ownerKey
	for _, kv := range f.get(keys.owners()) {
		if o, ok := parseOwner(keys, string(kv.Key), kv.Value, kv.ModRevision); ok {
			owners = append(owners, o)
		}
	}
	var out []orphan
	for _, o := range withoutLease(owners, s.taken) {
		out = append(out, orphan{o, old})
	}
	return out
}
