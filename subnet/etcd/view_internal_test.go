package etcd

import (
	"fmt"
	"maps"
	"slices"
	"testing"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"pgregory.net/rapid"

	"github.com/loden-net/loden/subnet"
)

// The view changes only what an event changes, and is after any history what a new list of the
// store gives. A snapshot that was taken before stays as it was.
func TestViewAfterAnyHistoryIsTheListOfTheStore(t *testing.T) {
	const branch = "/prefix/subnets/"
	lease := `{"PublicIP":"192.0.2.%d","BackendType":"wireguard","BackendData":{"PublicKey":"QkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkI=","Port":51820}}`
	rapid.Check(t, func(t *rapid.T) {
		store := map[string]*mvccpb.KeyValue{}
		list := func() *view {
			v := newView(branch)
			resp := &clientv3.GetResponse{Header: &etcdserverpb.ResponseHeader{Revision: 1}}
			resp.Kvs = slices.Collect(maps.Values(store))
			v.fill(resp)
			v.filled()
			return v
		}
		v := list()
		for revision := range int64(rapid.IntRange(1, 60).Draw(t, "events")) {
			key := branch + rapid.SampledFrom([]string{"10.5.1.0-24", "10.5.2.0-24", "10.5.3.0-24&fd00:5:0:3::-64", "fd00:5:0:4::-64", "no lease", ""}).Draw(t, "key")
			e := &clientv3.Event{Type: mvccpb.DELETE, Kv: &mvccpb.KeyValue{Key: []byte(key), ModRevision: revision}}
			if rapid.IntRange(0, 3).Draw(t, "kind") > 0 {
				e.Type = mvccpb.PUT
				e.Kv.CreateRevision = revision
				if old := store[key]; old != nil {
					e.Kv.CreateRevision = old.CreateRevision
				}
				e.Kv.Lease = rapid.Int64Range(0, 1).Draw(t, "etcd lease")
				e.Kv.Value = []byte(rapid.SampledFrom([]string{fmt.Sprintf(lease, 1), fmt.Sprintf(lease, 2), `{"PublicIP":"0.0.0.0"}`, "x"}).Draw(t, "value"))
				store[key] = e.Kv
			} else {
				delete(store, key)
			}
			before := v.snapshot()
			leases := before.Leases.Slice()
			v.fold(e)
			if !slices.Equal(before.Leases.Slice(), leases) {
				t.Fatal("an event changed an earlier snapshot")
			}
			same(t, v, list())
			if rapid.IntRange(0, 9).Draw(t, "list again") == 0 {
				again := list()
				again.succeed(v)
				v = again
			}
		}
	})
}

// same fails when two views of the same store differ.
func same(t *rapid.T, got, want *view) {
	a, b := got.snapshot(), want.snapshot()
	a.Released, b.Released = nil, nil
	if !a.Same(b) || !slices.Equal(got.waiting.Slice(), want.waiting.Slice()) || !maps.Equal(got.entries, want.entries) {
		t.Fatalf("after the events\n%v\na new list gives\n%v", a, b)
	}
	if waiting := slices.ContainsFunc(a.Leases.Slice(), subnet.Lease.Waiting); waiting {
		t.Fatal("a reservation that waits is shown")
	}
}
