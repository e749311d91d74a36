package etcd_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/loden-net/loden/subnet"
	"github.com/loden-net/loden/subnet/etcd"
)

// squat writes the owner keys of all subnets of 10.5.0.0/24 cut into /30s, except the free subnet.
func squat(t *testing.T, free int) {
	t.Helper()
	c := plain(t, shared)
	for i := 1; i < 64; i++ {
		if i != free {
			put(t, c, fmt.Sprintf("guards/10.5.0.%d-30", 4*i), "gone")
		}
	}
}

const squatDoc = `{"Network":"10.5.0.0/24","SubnetLen":30}`

func TestOwnerKeysWithoutALeaseKeepNoNodeOut(t *testing.T) {
	n := network(t, squatDoc)
	squat(t, 17)
	r := open(t, nil)
	choice, err := r.Choice(t.Context(), etcd.Want{Network: n, Lease: want("a", 1)})
	if err != nil {
		t.Fatal(err)
	}
	got := acquire(t, r, n, want("a", 1), noPrefix).Lease()
	if subnet.FormatKey(got.Subnets) != "10.5.0.68-30" || choice.Lease.Subnets != got.Subnets || choice.Held {
		t.Errorf("got %v, chosen before %+v; want the only free subnet", got.Subnets, choice)
	}
	_, problems, err := r.Leases(t.Context())
	if err != nil || len(problems) != 62 || !strings.Contains(problems[0].Reason, "loden lease release 10.5.0.") {
		t.Errorf("want 62 problems with their remedy, got %d, %v", len(problems), err)
	}
}

func TestOwnerKeysWithoutALeaseAreNamedFreedByHandAndTakenOverInTime(t *testing.T) {
	n, c := network(t, squatDoc), plain(t, shared)
	squat(t, -1)
	r := open(t, nil)
	_, err := r.Acquire(t.Context(), etcd.Want{Network: n, Lease: want("a", 1)})
	if !errors.Is(err, subnet.ErrOutOfSubnets) || !strings.Contains(err.Error(), `of node "gone"`) || !strings.Contains(err.Error(), "loden lease release 10.5.0.4-30") {
		t.Fatalf("got %v, want ErrOutOfSubnets with the first key and the remedy", err)
	}
	if err := r.Release(t.Context(), "10.5.0.4-30"); err != nil {
		t.Fatal(err)
	}
	if got := acquire(t, r, n, want("a", 1), noPrefix).Lease(); subnet.FormatKey(got.Subnets) != "10.5.0.4-30" {
		t.Errorf("after the release: %v", got.Subnets)
	}
	if err := r.Release(t.Context(), "10.5.0.4-30"); err != nil { // now a lease's
		t.Fatal(err)
	}
	put(t, c, "guards/10.5.0.4-30", "gone")
	patient := open(t, func(o *etcd.Options) { o.TTL = 2 * time.Second })
	eventually(t, "the time to live", func() bool {
		_, err := patient.Acquire(t.Context(), etcd.Want{Network: n, Lease: want("b", 2)})
		return err == nil
	})
}

// Another program overwrites the owner key of a lease that stands: the node keeps its lease.
func TestForeignOwnerKeyUnderALeaseOfOursIsMended(t *testing.T) {
	n, c := network(t, v4Doc), plain(t, shared)
	r := open(t, nil)
	claim := acquire(t, r, n, want("a", 1), noPrefix)
	form := subnet.FormatKey(claim.Lease().Subnets)
	put(t, c, "guards/"+form, "evil")
	if err := claim.Keep(within(t)); !errors.Is(err, etcd.ErrLeaseLost) {
		t.Fatal(err)
	}
	again := acquire(t, r, n, want("a", 1), noPrefix)
	if again.Lease().Subnets != claim.Lease().Subnets || dump(t, c)["guards/"+form] != "a" {
		t.Errorf("got %v; %v", again.Lease().Subnets, dump(t, c))
	}
}
