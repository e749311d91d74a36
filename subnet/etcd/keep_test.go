package etcd_test

import (
	"context"
	"errors"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/loden-net/loden/subnet"
	"github.com/loden-net/loden/subnet/etcd"
)

// keep runs Keep until the test ends and returns how it ended.
func keep(t *testing.T, c *etcd.Claim) <-chan error {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- c.Keep(ctx) }()
	t.Cleanup(cancel)
	return done
}

func ends(t *testing.T, done <-chan error) error {
	t.Helper()
	select {
	case err := <-done:
		return err
	case <-within(t).Done():
		t.Fatal("Keep did not end")
		return nil
	}
}

func TestKeepRenewsWithoutWriting(t *testing.T) {
	r, c := open(t, func(o *etcd.Options) { o.TTL = 4 * time.Second }), plain(t, shared)
	claim := acquire(t, r, network(t, dualDoc), want("a", 1), noPrefix)
	before := revision(t, c)
	keep(t, claim)
	resp, err := c.Get(t.Context(), prefix(t)+"/subnets/", clientv3.WithPrefix())
	if err != nil || len(resp.Kvs) != 1 {
		t.Fatal(resp, err)
	}
	last, renewals := int64(1<<62), 0
	eventually(t, "two renewals", func() bool {
		ttl, err := c.TimeToLive(t.Context(), clientv3.LeaseID(resp.Kvs[0].Lease))
		if err != nil || ttl.TTL <= 0 {
			t.Fatalf("lease is gone: %+v, %v", ttl, err)
		}
		if ttl.TTL > last {
			renewals++
		}
		last = ttl.TTL
		return renewals == 2
	})
	if after := revision(t, c); after != before {
		t.Errorf("renewal wrote: revision %d, was %d", after, before)
	}
}

func TestKeepEndsWhenTheLeaseIsNoLongerOurs(t *testing.T) {
	cases := map[string]func(*testing.T, *clientv3.Client, string){
		"expired": func(t *testing.T, c *clientv3.Client, _ string) { revokeAll(t, c) },
		"deleted": func(t *testing.T, c *clientv3.Client, leaf string) {
			_, _ = c.Delete(t.Context(), prefix(t)+"/subnets/"+leaf)
		},
		"overwritten by flannel": func(t *testing.T, c *clientv3.Client, leaf string) {
			put(t, c, "subnets/"+leaf, `{"PublicIP":"192.0.2.1","PublicIPv6":null}`)
		},
		"guard deleted": func(t *testing.T, c *clientv3.Client, _ string) {
			_, _ = c.Delete(t.Context(), prefix(t)+"/guards/10.5.9.0-24")
		},
		"guard of another node": func(t *testing.T, c *clientv3.Client, _ string) { put(t, c, "guards/10.5.9.0-24", "other") },
	}
	for name, harm := range cases {
		t.Run(name, func(t *testing.T) {
			r, c := open(t, nil), plain(t, shared)
			claim := acquire(t, r, network(t, dualDoc), want("a", 1), subnets(t, "10.5.9.0-24&fd00:5:0:9::-64"))
			done := keep(t, claim)
			harm(t, c, "10.5.9.0-24&fd00:5:0:9::-64")
			if err := ends(t, done); !errors.Is(err, etcd.ErrLeaseLost) {
				t.Fatalf("got %v, want ErrLeaseLost", err)
			}
		})
	}
}

// flannel issues 1289, 1505: a node that slept past its time to live takes its subnet back
// from the node that has it now.
func TestSleeperCannotWriteOverTheNextHolder(t *testing.T) {
	r, c, n := open(t, nil), plain(t, shared), network(t, dualDoc)
	sleeper := acquire(t, r, n, want("a", 1), noPrefix)
	revokeAll(t, c)
	next := acquire(t, r, n, want("b", 2), sleeper.Lease().Subnets)
	if next.Lease().Subnets != sleeper.Lease().Subnets {
		t.Fatalf("b holds %v, want what a held", next.Lease().Subnets)
	}
	before := revision(t, c)
	if err := sleeper.Keep(within(t)); !errors.Is(err, etcd.ErrLeaseLost) {
		t.Errorf("keep: %v", err)
	}
	if err := sleeper.Update(t.Context(), want("a", 99)); !errors.Is(err, etcd.ErrLeaseLost) {
		t.Errorf("update: %v", err)
	}
	if err := sleeper.Release(t.Context()); err != nil {
		t.Errorf("release: %v", err)
	}
	if after := revision(t, c); after != before {
		t.Errorf("the sleeper wrote: revision %d, was %d", after, before)
	}
	again := acquire(t, r, n, want("a", 1), sleeper.Lease().Subnets).Lease()
	for f, p := range again.Subnets.All() {
		if q, _ := next.Lease().Subnets.Of(f).Get(); p == q {
			t.Errorf("%s is held twice", p)
		}
	}
}

func TestUpdateWritesOnlyWhatDiffers(t *testing.T) {
	r, c := open(t, nil), plain(t, shared)
	claim := acquire(t, r, network(t, dualDoc), want("a", 1), noPrefix)
	before := revision(t, c)
	if err := claim.Update(t.Context(), claim.Lease()); err != nil || revision(t, c) != before {
		t.Errorf("a no-op wrote, or failed: %v", err)
	}
	done := keep(t, claim)
	if err := claim.Update(t.Context(), want("a", 9)); err != nil {
		t.Fatal(err)
	}
	s, err := r.Snapshot(t.Context())
	if err != nil || s.Leases.Len() != 1 || s.Leases.Slice()[0] != claim.Lease() || s.Leases.Slice()[0].Endpoints != want("a", 9).Endpoints {
		t.Errorf("store has %+v (%v), claim %+v", s.Leases, err, claim.Lease())
	}
	if err := claim.Update(t.Context(), want("a", 10)); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-done:
		t.Errorf("Keep ended at our own write: %v", err)
	default:
	}
}

func TestReleaseLeavesNothing(t *testing.T) {
	r, c := open(t, nil), plain(t, shared)
	claim := acquire(t, r, network(t, dualDoc), want("a", 1), noPrefix)
	if err := claim.Release(t.Context()); err != nil {
		t.Fatal(err)
	}
	if keys := dump(t, c); len(keys) != 0 {
		t.Errorf("left: %v", keys)
	}
	if err := claim.Release(t.Context()); err != nil {
		t.Errorf("again: %v", err)
	}
	if err := r.Release(t.Context(), "a"); !errors.Is(err, etcd.ErrNoLease) {
		t.Errorf("by name: got %v, want ErrNoLease", err)
	}
}

func TestReservationOutlastsEverything(t *testing.T) {
	r, c, n := open(t, nil), plain(t, shared), network(t, dualDoc)
	reserved, err := r.Reserve(t.Context(), n, "a", subnets(t, "10.5.40.0-24"))
	if err != nil || subnet.FormatKey(reserved.Subnets) != "10.5.40.0-24&fd00:5:0:28::-64" {
		t.Fatalf("reserve: %v, %v", reserved, err)
	}
	s, err := r.Snapshot(t.Context())
	if err != nil || s.Leases.Len()+len(s.Problems) != 0 {
		t.Errorf("a reservation that waits is no peer and no problem: %+v, %v", s, err)
	}
	for i := range 5 {
		claim := acquire(t, r, n, want("a", byte(i+1)), noPrefix)
		if claim.Lease().Subnets != reserved.Subnets || !claim.Lease().Reserved {
			t.Fatalf("start %d: %+v", i, claim.Lease())
		}
	}
	claim := acquire(t, r, n, want("a", 5), noPrefix)
	if err := claim.Release(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Reserve(t.Context(), n, "b", subnets(t, "10.5.40.0-24")); err == nil {
		t.Error("the same subnet was reserved twice")
	}
	other := acquire(t, r, n, want("b", 9), reserved.Subnets).Lease()
	if other.Subnets.V4 == reserved.Subnets.V4 || other.Subnets.V6 == reserved.Subnets.V6 {
		t.Errorf("b got what is reserved for a: %v", other.Subnets)
	}
	new := want("a", 77) // another machine, under the same name
	new.Key = key("new")
	if got := acquire(t, r, n, new, noPrefix).Lease(); got.Subnets != reserved.Subnets {
		t.Errorf("a set up anew got %v", got.Subnets)
	}
	resp, err := c.Get(t.Context(), prefix(t)+"/subnets/10.5.40.0-24", clientv3.WithPrefix())
	if err != nil || len(resp.Kvs) != 1 || resp.Kvs[0].Lease != 0 {
		t.Errorf("reservation hangs on an etcd lease: %v, %v", resp.Kvs, err)
	}
	if err := r.Unreserve(t.Context(), "a"); err != nil {
		t.Fatal(err)
	}
	if keys := dump(t, c); len(keys) != 4 { // b's
		t.Errorf("left: %v", keys)
	}
}

func TestReserveALivingNodesLeaseKeepsItRunning(t *testing.T) {
	r, n := open(t, nil), network(t, dualDoc)
	x := runNode(t, r, n, want("a", 1))
	eventually(t, "a lease", func() bool { return x.held() != "" })
	held := x.held()
	l, err := r.Reserve(t.Context(), n, "a", noPrefix)
	if err != nil || subnet.FormatKey(l.Subnets) != held {
		t.Fatalf("reserve: %+v, %v; the node holds %s", l, err, held)
	}
	eventually(t, "the node to take note", func() bool {
		x.mu.Lock()
		defer x.mu.Unlock()
		return x.lease.Reserved
	})
	if x.held() != held {
		t.Errorf("subnets moved from %s to %s", held, x.held())
	}
	if _, err := r.Reserve(t.Context(), n, "a", subnets(t, "10.5.250.0-24")); err == nil {
		t.Error("another subnet was reserved for a node that runs")
	}
}

func TestReleaseOfFlannelsLeaseByItsKey(t *testing.T) {
	r, c := open(t, nil), plain(t, shared)
	put(t, c, "subnets/10.5.1.0-24", `{"PublicIP":"192.0.2.1","PublicIPv6":null,"BackendType":"wireguard","BackendData":{"PublicKey":"`+key("x").String()+`","Port":51820}}`)
	if err := r.Unreserve(t.Context(), "10.5.1.0-24"); err != nil {
		t.Fatal(err)
	}
	if keys := dump(t, c); len(keys) != 0 {
		t.Errorf("left: %v", keys)
	}
}
