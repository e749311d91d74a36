package etcd_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/loden-net/loden/subnet"
	"github.com/loden-net/loden/subnet/etcd"
)

// watch collects the snapshots of a registry.
type watch struct {
	mu   sync.Mutex
	all  []subnet.Snapshot
	stop func()
}

func follow(t *testing.T, r *etcd.Registry) *watch {
	t.Helper()
	w := &watch{}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		done <- r.Watch(ctx, func(s subnet.Snapshot) {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.all = append(w.all, s)
		})
	}()
	w.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("watch ended with %v", err)
		}
	})
	t.Cleanup(w.stop)
	return w
}

func (w *watch) last() subnet.Snapshot {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.all) == 0 {
		return subnet.Snapshot{Revision: -1}
	}
	return w.all[len(w.all)-1]
}

func (w *watch) count() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.all)
}

func names(s subnet.Snapshot) string {
	var out []string
	for l := range s.Leases.All() {
		out = append(out, l.Node)
	}
	return strings.Join(out, " ")
}

func TestWatchEmitsCompleteSortedSnapshots(t *testing.T) {
	r, n := open(t, nil), network(t, dualDoc)
	acquire(t, r, n, want("b", 2), noPrefix)
	w := follow(t, r)
	eventually(t, "the list", func() bool { return names(w.last()) == "b" })
	a := acquire(t, r, n, want("a", 1), noPrefix)
	eventually(t, "a node that joins", func() bool { return names(w.last()) == "b a" })
	moved := want("a", 77)
	if err := a.Update(t.Context(), moved); err != nil {
		t.Fatal(err)
	}
	eventually(t, "a new endpoint", func() bool { return w.last().Leases.Slice()[1].Endpoints == moved.Endpoints })
	if err := a.Release(t.Context()); err != nil {
		t.Fatal(err)
	}
	eventually(t, "a node that leaves", func() bool { return names(w.last()) == "b" })
	if got := w.last().Released; !slices.Equal(got, []string{subnet.FormatKey(a.Lease().Subnets)}) {
		t.Errorf("released: got %v, want the key of a", got)
	}
}

func TestWatchTellsAnExpiryFromARelease(t *testing.T) {
	r, c, n := open(t, nil), plain(t, shared), network(t, dualDoc)
	acquire(t, r, n, want("a", 1), noPrefix)
	w := follow(t, r)
	eventually(t, "the list", func() bool { return names(w.last()) == "a" })
	revokeAll(t, c)
	eventually(t, "the end of the lease", func() bool { return names(w.last()) == "" })
	if got := w.last().Released; len(got) != 0 {
		t.Errorf("released: %v; nobody released anything", got)
	}
}

// revokeAll ends every etcd lease under the test's prefix, as their time would.
func revokeAll(t *testing.T, c *clientv3.Client) {
	t.Helper()
	resp, err := c.Get(t.Context(), prefix(t)+"/subnets/", clientv3.WithPrefix())
	if err != nil {
		t.Fatal(err)
	}
	for _, kv := range resp.Kvs {
		if _, err := c.Revoke(t.Context(), clientv3.LeaseID(kv.Lease)); err != nil {
			t.Fatal(err)
		}
	}
}

// flannel drops every peer at a single bad key (shared facts 6.1.1).
func TestWatchSkipsAndReportsWhatIsNoLease(t *testing.T) {
	r, c, n := open(t, nil), plain(t, shared), network(t, dualDoc)
	acquire(t, r, n, want("a", 1), noPrefix)
	w := follow(t, r)
	bad := map[string]string{
		"subnets/hello":                     "{}",
		"subnets/10.5.1.1-24":               `{"PublicIP":"192.0.2.9"}`,
		"subnets/10.5.2.0-24":               `{`,
		"subnets/10.5.3.0-24":               `{"PublicIP":"192.0.2.9","PublicIPv6":null,"BackendType":"vxlan","BackendData":{"VNI":1}}`,
		"subnets/10.5.4.0-24/more":          `{}`,
		"subnets/\x1b[2Jhello":              `{}`,
		"subnets/" + strings.Repeat("x", 9): "",
	}
	for leaf, value := range bad {
		put(t, c, leaf, value)
	}
	put(t, c, "subnets-x", "not under the branch")
	acquire(t, r, n, want("b", 2), noPrefix)
	eventually(t, "all problems and all peers", func() bool {
		return len(w.last().Problems) == len(bad) && names(w.last()) == "a b"
	})
	for _, p := range w.last().Problems {
		if !strings.HasPrefix(p.Object, prefix(t)+"/subnets/") || p.Reason == "" || strings.Contains(p.Object, "\x1b") {
			t.Errorf("problem %+v", p)
		}
	}
	for _, s := range w.all {
		if !strings.HasPrefix(names(s), "a") {
			t.Errorf("a snapshot at revision %d lost the peer: %v", s.Revision, s)
		}
	}
	for leaf := range bad {
		if _, err := c.Delete(t.Context(), prefix(t)+"/"+leaf); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "the end of the problems", func() bool { return len(w.last().Problems) == 0 && names(w.last()) == "a b" })
}

// flannel issues 2470, 2524.
func TestWatchListsAgainAfterACompactionWhileCutOff(t *testing.T) {
	t.Parallel()
	server := own(t)
	c := plain(t, server.Client)
	ready(t, c)
	direct, way := open(t, nil, server.Client), newProxy(t, server.Client)
	far := open(t, nil, way.url())
	n := network(t, dualDoc)
	w := follow(t, far)
	acquire(t, direct, n, want("a", 1), noPrefix)
	b := acquire(t, direct, n, want("b", 2), noPrefix)
	eventually(t, "both nodes", func() bool { return names(w.last()) == "a b" })
	way.setCut(true)
	eventually(t, "the loss to be known", func() bool { return !far.Status().Connected })
	before := w.count()
	if err := b.Release(t.Context()); err != nil {
		t.Fatal(err)
	}
	acquire(t, direct, n, want("c", 3), noPrefix)
	resp, err := c.Put(t.Context(), "/elsewhere", "")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Compact(t.Context(), resp.Header.Revision, clientv3.WithCompactPhysical()); err != nil {
		t.Fatal(err)
	}
	if w.count() != before {
		t.Errorf("something was emitted while cut off")
	}
	way.setCut(false)
	eventually(t, "what happened meanwhile", func() bool { return names(w.last()) == "a c" })
	if !far.Status().Connected || far.Status().Relists < 2 {
		t.Errorf("status %+v", far.Status())
	}
	acquire(t, direct, n, want("d", 4), noPrefix)
	eventually(t, "what happens after", func() bool { return names(w.last()) == "a c d" })
}

func TestWatchListsAgainNowAndThen(t *testing.T) {
	r := open(t, func(o *etcd.Options) { o.Relist = 20 * time.Millisecond })
	acquire(t, r, network(t, dualDoc), want("a", 1), noPrefix)
	w := follow(t, r)
	eventually(t, "three lists", func() bool { return r.Status().Relists >= 3 })
	if w.count() != 1 {
		t.Errorf("%d snapshots of one state", w.count())
	}
}

func TestWatchNetworkEmitsWhatChanges(t *testing.T) {
	r, c := open(t, nil), plain(t, shared)
	type seen struct {
		doc etcd.Document
		err error
	}
	var mu sync.Mutex
	var all []seen
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		done <- r.WatchNetwork(ctx, func(d etcd.Document, err error) {
			mu.Lock()
			defer mu.Unlock()
			all = append(all, seen{d, err})
		})
	}()
	nth := func(i int, ok func(seen) bool) {
		t.Helper()
		eventually(t, fmt.Sprintf("emit %d", i), func() bool {
			mu.Lock()
			defer mu.Unlock()
			return len(all) > i && ok(all[i])
		})
	}
	nth(0, func(s seen) bool { return errors.Is(s.err, etcd.ErrNoNetwork) })
	put(t, c, "config", dualDoc)
	nth(1, func(s seen) bool { return s.err == nil && s.doc.Network == network(t, dualDoc) })
	put(t, c, "config", "{")
	nth(2, func(s seen) bool { return s.err != nil && !errors.Is(s.err, etcd.ErrNoNetwork) })
	put(t, c, "config", v4Doc)
	nth(3, func(s seen) bool { return s.err == nil && s.doc.Network == network(t, v4Doc) })
	if _, err := c.Delete(t.Context(), prefix(t)+"/config"); err != nil {
		t.Fatal(err)
	}
	nth(4, func(s seen) bool { return errors.Is(s.err, etcd.ErrNoNetwork) })
	cancel()
	<-done
	if len(all) != 5 {
		t.Errorf("%d emits, want 5", len(all))
	}
}
