package etcd_test

import (
	"testing"
	"time"
)

// Machines cloned with name and key take the lease from each other; etcd must not feel it.
func TestClonedNodesDoNotSpin(t *testing.T) {
	c, n := plain(t, shared), network(t, dualDoc)
	a := runNode(t, open(t, nil), n, want("a", 1))
	eventually(t, "the first", func() bool { return a.held() != "" })
	b := runNode(t, open(t, nil), n, want("a", 2))
	eventually(t, "a fight", func() bool { return a.losses() > 3 && b.held() != "" })
	before, start := revision(t, c), time.Now()
	eventually(t, "three seconds", func() bool { return time.Since(start) > 3*time.Second })
	if writes := revision(t, c) - before; writes > 40 {
		t.Errorf("%d writes in three seconds", writes)
	}
	if a.held() != b.held() {
		t.Errorf("one name and key, two leases: %s and %s", a.held(), b.held())
	}
}
