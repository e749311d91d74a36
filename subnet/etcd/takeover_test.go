package etcd_test

import (
	"errors"
	"strings"
	"testing"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/loden-net/loden/subnet"
	"github.com/loden-net/loden/subnet/etcd"
)

func TestRenamedNodeKeepsItsSubnetsAndLeavesNoKeyOfTheOldName(t *testing.T) {
	c, n := plain(t, shared), network(t, dualDoc)
	before := acquire(t, open(t, nil), n, want("a", 1), noPrefix).Lease()
	w := follow(t, open(t, nil))
	eventually(t, "the list", func() bool { return names(w.last()) == "a" })
	renamed := want("a.example.com", 1)
	renamed.Key = key("a")
	r := open(t, nil)
	claim := acquire(t, r, n, renamed, noPrefix)
	if got := claim.Lease(); got.Subnets != before.Subnets || got.Node != "a.example.com" || got.Since != before.Since {
		t.Errorf("got %+v, want the subnets and the age of %+v", got, before)
	}
	for k, v := range dump(t, c) {
		if k == "nodes/a" || strings.HasPrefix(k, "guards/") && v != "a.example.com" {
			t.Errorf("left of the old name: %s = %s", k, v)
		}
	}
	eventually(t, "the new name", func() bool { return names(w.last()) == "a.example.com" })
	for _, s := range w.all {
		if s.Leases.Len() != 1 || s.Leases.Slice()[0].Key != key("a") {
			t.Errorf("a watcher saw a moment without the node, or with two: %+v", s.Leases)
		}
	}
	keep(t, claim)
	if err := claim.Release(t.Context()); err != nil {
		t.Fatal(err)
	}
	if keys := dump(t, c); len(keys) != 0 {
		t.Errorf("left: %v", keys)
	}
}

// A machine that was cloned with its state directory, and got another name and address,
// has the last word; the machine it was cloned from says so, and they do not fight.
func TestCloneUnderAnotherNameDoesNotFight(t *testing.T) {
	n := network(t, dualDoc)
	first, second := open(t, nil), open(t, nil)
	held := acquire(t, first, n, want("a", 1), noPrefix)
	clone := want("b", 2)
	clone.Key = key("a")
	took := acquire(t, second, n, clone, noPrefix)
	if err := held.Keep(within(t)); !errors.Is(err, etcd.ErrLeaseLost) {
		t.Fatalf("keep: got %v, want ErrLeaseLost", err)
	}
	_, err := first.Acquire(t.Context(), etcd.Want{Network: n, Lease: want("a", 1), Prefer: held.Lease().Subnets})
	if !errors.Is(err, etcd.ErrKeyTaken) || !strings.Contains(err.Error(), "192.0.2.2:51820") || !strings.Contains(err.Error(), "private.key") {
		t.Fatalf("got %v, want ErrKeyTaken with the clone's address and the remedy", err)
	}
	if err := took.Update(t.Context(), clone); err != nil {
		t.Errorf("the clone lost the lease: %v", err)
	}
	restarted := open(t, nil)
	if got := acquire(t, restarted, n, want("a", 1), noPrefix).Lease(); got.Subnets != held.Lease().Subnets {
		t.Errorf("a restart got %v", got.Subnets)
	}
}

// flannel's default backend is vxlan: running pods keep their addresses when their node
// moves to Loden.
func TestAcquireTakesOverAFlannelLeaseOfAnyBackendWithItsSubnets(t *testing.T) {
	for name, value := range map[string]string{
		"vxlan":   `{"PublicIP":"192.0.2.1","PublicIPv6":null,"BackendType":"vxlan","BackendData":{"VNI":1,"VtepMAC":"0e:2a:00:00:00:16"}}`,
		"host-gw": `{"PublicIP":"192.0.2.1","PublicIPv6":null,"BackendType":"host-gw"}`,
		"udp":     `{"PublicIP":"192.0.2.1","PublicIPv6":null,"BackendType":"udp"}`,
		"ipip":    `{"PublicIP":"192.0.2.1","PublicIPv6":null,"BackendType":"ipip","BackendData":null}`,
	} {
		t.Run(name, func(t *testing.T) {
			r, c, n := open(t, nil), plain(t, shared), network(t, v4Doc)
			granted, err := c.Grant(t.Context(), 60)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := c.Put(t.Context(), prefix(t)+"/subnets/10.5.22.0-24", value, clientv3.WithLease(granted.ID)); err != nil {
				t.Fatal(err)
			}
			choice, err := r.Choice(t.Context(), etcd.Want{Network: n, Lease: want("a", 1)})
			if err != nil || !choice.Held || subnet.FormatKey(choice.Lease.Subnets) != "10.5.22.0-24" {
				t.Errorf("choice: %+v, %v", choice, err)
			}
			claim := acquire(t, r, n, want("a", 1), noPrefix)
			if got := subnet.FormatKey(claim.Lease().Subnets); got != "10.5.22.0-24" {
				t.Fatalf("got %s", got)
			}
			if claim.EtcdLease() == granted.ID {
				t.Error("the lease hangs on flannel's etcd lease")
			}
			s, err := r.Snapshot(t.Context())
			if err != nil || s.Leases.Len() != 1 || len(s.Problems) != 0 || s.Leases.Slice()[0] != claim.Lease() {
				t.Errorf("store: %+v, %v", s, err)
			}
			if err := r.Release(t.Context(), "a"); err != nil {
				t.Fatal(err)
			}
		})
	}
}
