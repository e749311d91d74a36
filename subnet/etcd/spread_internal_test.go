package etcd

import (
	"context"
	"testing"
	"testing/synctest"
	"time"
)

func TestListsOfALargeClusterAreSpreadAndOfASmallClusterAreNot(t *testing.T) {
	for _, c := range []struct {
		leases int
		want   time.Duration
	}{{0, 0}, {3, 36 * time.Microsecond}, {100, 40 * time.Millisecond}, {1000, 4 * time.Second}, {10_000, time.Minute}, {1 << 20, time.Minute}} {
		if got := listSpread(c.leases); got != c.want {
			t.Errorf("%d leases: lists are spread over %v, want %v", c.leases, got, c.want)
		}
	}
}

// TestHerdListsOverTheWholeSpread lets 1,000 nodes with the same reason wait on virtual time.
func TestHerdListsOverTheWholeSpread(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		waited := make(chan time.Duration, 1000)
		for range cap(waited) {
			go func() {
				spread(t.Context(), errRelist, 1000)
				waited <- time.Since(began)
			}()
		}
		var quarters [4]int
		for range cap(waited) {
			quarters[min(3, int(4*<-waited/listSpread(1000)))]++
		}
		for k, n := range quarters {
			if n < 150 {
				t.Errorf("quarter %d of the spread has %d of 1,000 lists: %v", k+1, n, quarters)
			}
		}
	})
}

func TestListInTurnAndListAtTheEndDoNotWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		spread(t.Context(), errInTurn, 10_000)
		ended, end := context.WithCancel(t.Context())
		end()
		spread(ended, errRelist, 10_000)
		if took := time.Since(began); took != 0 {
			t.Errorf("waited %v", took)
		}
	})
}
