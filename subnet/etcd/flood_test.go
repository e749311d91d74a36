package etcd_test

import (
	"context"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/loden-net/loden/subnet"
)

// burst writes n keys under the leases branch, many at once.
func burst(t *testing.T, c *clientv3.Client, n int, value string) {
	t.Helper()
	var next atomic.Int64
	var wg sync.WaitGroup
	for range 32 {
		wg.Go(func() {
			for i := next.Add(1); i <= int64(n); i = next.Add(1) {
				if _, err := c.Put(t.Context(), fmt.Sprintf("%s/subnets/junk%d", prefix(t), i), value); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
}

// A writer under the prefix can write any amount: a node still starts, names the fault, and
// uses little memory. Eighty values of 1 MB are far more than a page.
func TestFloodOfLargeValuesCostsAPageAndNoNode(t *testing.T) {
	t.Parallel()
	server := own(t)
	c := plain(t, server.Client)
	ready(t, c)
	direct := open(t, nil, server.Client)
	n := network(t, dualDoc)
	acquire(t, direct, n, want("b", 2), noPrefix)
	burst(t, c, 80, strings.Repeat("x", 1_000_000))
	runtime.GC()
	var before, peak runtime.MemStats
	runtime.ReadMemStats(&before)
	ctx, stop := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() {
		for ctx.Err() == nil {
			var now runtime.MemStats
			runtime.ReadMemStats(&now)
			if now.HeapInuse > peak.HeapInuse {
				peak = now
			}
			select {
			case <-ctx.Done():
			case <-time.After(time.Millisecond):
			}
		}
	})
	r := open(t, nil, server.Client)
	acquire(t, r, n, want("a", 1), noPrefix)
	w := follow(t, r)
	eventually(t, "the list", func() bool { return names(w.last()) == "b a" && len(w.last().Problems) == 80 })
	stop()
	wg.Wait()
	if grown := int64(peak.HeapInuse-before.HeapInuse) >> 20; grown > 64 {
		t.Errorf("80 MB of junk: the heap grew by %d MiB", grown)
	} else {
		t.Logf("80 MB of junk: the heap grew by %d MiB", grown)
	}
}

// A value that is larger than a message of gRPC is a problem like every other value.
func TestValueLargerThanAMessageIsAProblem(t *testing.T) {
	t.Parallel()
	server := own(t, "--max-request-bytes", "40000000")
	c := plain(t, server.Client)
	ready(t, c)
	big, err := clientv3.New(clientv3.Config{Endpoints: []string{server.Client}, MaxCallSendMsgSize: 50 << 20, Logger: c.GetLogger()})
	if err != nil {
		t.Fatal(err)
	}
	defer big.Close()
	for _, key := range []string{"subnets/10.5.2.0-24", "subnets/a"} {
		if _, err := big.Put(t.Context(), prefix(t)+"/"+key, strings.Repeat("x", 20_000_000)); err != nil {
			t.Fatal(err)
		}
	}
	r := open(t, nil, server.Client)
	got := acquire(t, r, network(t, v4Doc), want("a", 1), subnets(t, "10.5.2.0-24")).Lease()
	if subnet.FormatKey(got.Subnets) == "10.5.2.0-24" {
		t.Error("a subnet whose key stands was given out")
	}
	s, err := r.Snapshot(t.Context())
	if err != nil || names(s) != "a" || len(s.Problems) != 2 {
		t.Errorf("got %+v, %v", s, err)
	}
}

// Thousands of keys while the consumer needs 10 ms for each snapshot: the number of
// snapshots follows from the time, not from the number of keys.
func TestBurstOfKeysIsFewSnapshots(t *testing.T) {
	r, c := open(t, nil), plain(t, shared)
	ctx, cancel := context.WithCancel(t.Context())
	var mu sync.Mutex
	count, last := 0, 0
	done := make(chan error, 1)
	go func() {
		done <- r.Watch(ctx, func(s subnet.Snapshot) {
			select {
			case <-ctx.Done():
			case <-time.After(10 * time.Millisecond):
			}
			mu.Lock()
			defer mu.Unlock()
			count, last = count+1, len(s.Problems)
		})
	}()
	const keys = 2000
	began := time.Now()
	burst(t, c, keys, "x")
	eventually(t, "all keys", func() bool { mu.Lock(); defer mu.Unlock(); return last == keys })
	took := time.Since(began)
	cancel()
	<-done
	t.Logf("%d keys in %v: %d snapshots", keys, took.Round(time.Millisecond), count)
	if most := int(took/(10*time.Millisecond)) + 2; count > most || count > keys/4 {
		t.Errorf("%d snapshots of %d keys in %v, at most %d are of use", count, keys, took, most)
	}
}

// A key of any length is bounded in memory and in the message about it.
func TestLongKeysAreProblemsOfBoundedLength(t *testing.T) {
	r, c := open(t, nil), plain(t, shared)
	for i := range 3 {
		put(t, c, "subnets/"+strings.Repeat("y", 10_000+i), "x")
	}
	w := follow(t, r)
	eventually(t, "three problems", func() bool { return len(w.last().Problems) == 3 })
	for _, p := range w.last().Problems {
		if len(p.Object) > 400 {
			t.Errorf("an object of %d bytes", len(p.Object))
		}
	}
	if _, err := c.Delete(t.Context(), prefix(t)+"/subnets/"+strings.Repeat("y", 10_001)); err != nil {
		t.Fatal(err)
	}
	eventually(t, "two problems", func() bool { return len(w.last().Problems) == 2 })
}
