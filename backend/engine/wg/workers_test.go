package wg

import (
	"math/rand/v2"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"
)

// load is a batch of a test: a number, and whether somebody works on it.
type load struct {
	number int
	held   atomic.Bool
}

func TestWorkerPoolFinishesInOrderWhateverWorkTakes(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		workers := rapid.IntRange(0, 4).Draw(rt, "workers")
		count := rapid.IntRange(1, 40).Draw(rt, "batches")
		random := rand.New(rand.NewPCG(rapid.Uint64().Draw(rt, "seed"), 0))
		synctest.Test(t, func(*testing.T) { pass(rt, workers, count, random) })
	})
}

func pass(t *rapid.T, workers, count int, random *rand.Rand) {
	var finished []int
	var atWork, most atomic.Int32
	times := make([]time.Duration, count)
	for i := range times {
		times[i] = time.Duration(random.Int64N(int64(10 * time.Millisecond)))
	}
	c := newWorkerPool(workers, func() *load { return new(load) }, func(l *load) {
		if l.held.Swap(true) {
			t.Error("two work on one batch")
		}
		most.Store(max(most.Load(), atWork.Add(1)))
		time.Sleep(times[l.number])
		atWork.Add(-1)
	}, func(l *load) {
		finished = append(finished, l.number) // a race if two finish at once
		l.held.Store(false)
	})
	defer c.close()
	l := c.fresh()
	for i := range count {
		if l.held.Load() {
			t.Error("a batch is filled while somebody works on it")
		}
		l.number = i
		l = c.submit(l)
		if random.IntN(10) == 0 {
			c.wait()
			if len(finished) != i+1 {
				t.Errorf("settled with %d of %d finished", len(finished), i+1)
			}
		}
	}
	c.wait()
	for i, n := range finished {
		if n != i {
			t.Fatalf("batch %d was finished as number %d", n, i)
		}
	}
	if len(finished) != count || int(most.Load()) > max(workers, 1) {
		t.Errorf("%d of %d finished, at most %d at once by %d workers", len(finished), count, most.Load(), workers)
	}
}

func TestHalfOfManyProcessorsAreHandsForEachDirection(t *testing.T) {
	for n, want := range map[int]int{1: 0, 2: 0, 3: 0, 4: 1, 6: 2, 8: 3, 10: 3, 128: 3} {
		if got := workersFor(n); got != want {
			t.Errorf("%d processors: %d workers, want %d", n, got, want)
		}
	}
}
