package subnet_test

import (
	"testing"

	"github.com/loden-net/loden/config/sorted"
	"github.com/loden-net/loden/subnet"
)

// The proof that the groups are the right groups is the test of the planner in package network.
func TestClaimsFindTheGroupOfAChangeAndNoOtherLease(t *testing.T) {
	a := peer(t, "a", "10.5.1.0-24&fd00:5:0:1::-64", 1, 17)
	b := peer(t, "b", "10.5.1.0-24&fd00:5:0:2::-64", 2, 23) // shares its IPv4 subnet with a
	c := peer(t, "c", "10.5.3.0-24", 2, 31)                 // shares its key with b
	d := peer(t, "d", "10.5.4.0-24", 4, 40)
	claims := subnet.NewClaims(sorted.Of(a, b, c, d))
	again, gone := claims.Follow(sorted.Of(b, c, d))
	if got := sorted.Of(again...); !got.Equal(sorted.Of(b, c)) || len(gone) != 1 || gone[0] != a {
		t.Errorf("when a leaves, %v is judged again and %v is gone", got, gone)
	}
	d.Claimed = 1
	if again, gone = claims.Follow(sorted.Of(b, c, d)); len(again) != 1 || again[0] != d || len(gone) != 1 {
		t.Errorf("when d changes, %v is judged again and %v is gone", again, gone)
	}
	claims.Follow(subnet.Leases{})
	if n := claims.Size(); n != 0 {
		t.Errorf("without leases the index holds %d claims", n)
	}
}
