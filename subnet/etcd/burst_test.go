package etcd_test

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/loden-net/loden/subnet"
)

// A consumer that needs 5 ms for a snapshot gets a snapshot each 50 ms at most while a burst of
// keys is written, and the last of them holds all keys.
func TestABurstOfKeysIsMergedIntoAFewSnapshots(t *testing.T) {
	const keys, work = 1000, 5 * time.Millisecond
	r, c := open(t, nil), plain(t, shared)
	ctx, stop := context.WithCancel(t.Context())
	var emitted, problems atomic.Int64
	ended := make(chan error, 1)
	go func() {
		ended <- r.Watch(ctx, func(s subnet.Snapshot) {
			<-time.After(work)
			emitted.Add(1)
			problems.Store(int64(len(s.Problems)))
		})
	}()
	eventually(t, "the list", func() bool { return emitted.Load() == 1 })
	began := time.Now()
	var g errgroup.Group
	g.SetLimit(32)
	for i := range keys {
		g.Go(func() error {
			_, err := c.Put(ctx, fmt.Sprintf("%s/subnets/burst-%d", prefix(t), i), "x")
			return err
		})
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "all keys", func() bool { return problems.Load() == keys })
	if took, most := time.Since(began), 2+int64(time.Since(began)/(10*work)); emitted.Load() > most+1 {
		t.Errorf("%d snapshots in %v, want %d at most", emitted.Load(), took, most)
	}
	stop()
	<-ended
}
