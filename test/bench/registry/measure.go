package main

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// atOnce lets nodes join at the same moment.
func atOnce(ctx context.Context, s *store, c contender, nodes, watchers int) error {
	followCtx, stop := context.WithCancel(ctx)
	defer stop()
	var wg sync.WaitGroup
	known := make([]atomic.Int64, watchers)
	for i := range watchers {
		wg.Go(func() { _ = c.follow(followCtx, func(n int) { known[i].Store(int64(n)) }) })
	}
	before := s.counters()
	claims, errs, took := make([]claim, nodes), make([]error, nodes), make([]time.Duration, nodes)
	start := time.Now()
	var joins sync.WaitGroup
	for i := range nodes {
		joins.Go(func() {
			at := time.Now()
			claims[i], errs[i] = c.join(ctx, i)
			took[i] = time.Since(at)
		})
	}
	joins.Wait()
	wall := time.Since(start)
	after := s.counters()
	settle(ctx, known, int64(nodes))
	end := s.counters()
	stop()
	wg.Wait()
	failed := 0
	for _, err := range errs {
		if err != nil {
			failed++
		}
	}
	slices.Sort(took)
	fmt.Printf("%-8s %d nodes at once: wall %v, per join p50 %v p99 %v, failed %d, held twice: %d IPv4 %d IPv6\n", c.name(), nodes,
		wall.Round(time.Millisecond), took[nodes/2].Round(time.Millisecond), took[nodes*99/100].Round(time.Millisecond),
		failed, twice(claims, func(c claim) string { return c.v4 }), twice(claims, func(c claim) string { return c.v6 }))
	fmt.Printf("%-8s   requests: %s\n", c.name(), after.since(before))
	if per, races, ok := perNode(claims); ok {
		fmt.Printf("%-8s   per node: median %d requests, at most %d; lost races: %d in all\n", c.name(), per[len(per)/2], per[len(per)-1], races)
	}
	fmt.Printf("%-8s   watch events sent to %d followers: %d\n", c.name(), watchers, end.events-before.events)
	return nil
}

// settle waits until every follower knows all leases, or gives up: flannel's may never.
func settle(ctx context.Context, known []atomic.Int64, want int64) {
	limit := time.After(5 * time.Second)
	for {
		all := true
		for i := range known {
			all = all && known[i].Load() >= want
		}
		if all {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-limit:
			return
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// twice counts subnets that more than a single node holds.
func twice(claims []claim, of func(claim) string) int {
	count := map[string]int{}
	for _, c := range claims {
		if s := of(c); s != "" {
			count[s]++
		}
	}
	n := 0
	for _, k := range count {
		if k > 1 {
			n++
		}
	}
	return n
}

func perNode(claims []claim) (per []int64, races int64, ok bool) {
	for _, c := range claims {
		if c.requests < 0 {
			return nil, 0, false
		}
		per = append(per, c.requests)
		races += c.races
	}
	slices.Sort(per)
	return per, races, true
}

// large measures a follower and a further node in a cluster of many leases.
func large(ctx context.Context, s *store, c contender, leases int) error {
	if err := c.seed(ctx, leases); err != nil {
		return err
	}
	followCtx, stop := context.WithCancel(ctx)
	defer stop()
	heap := heapInUse()
	before := s.counters()
	start := time.Now()
	first, joined := make(chan time.Duration, 1), make(chan time.Duration, 1)
	var joinedAt atomic.Pointer[time.Time]
	done := make(chan error, 1)
	go func() {
		done <- c.follow(followCtx, func(n int) {
			if n == leases {
				push(first, time.Since(start))
			}
			if t := joinedAt.Load(); n == leases+1 && t != nil {
				push(joined, time.Since(*t))
			}
		})
	}()
	var snapshot time.Duration
	select {
	case snapshot = <-first:
	case err := <-done:
		return errors.Join(errors.New("follower ended"), err)
	case <-ctx.Done():
		return ctx.Err()
	}
	listed := s.counters()
	memory := heapInUse() - heap
	fmt.Printf("%-8s %d leases: first snapshot after %v (%s), follower's memory %d KiB\n", c.name(), leases,
		snapshot.Round(time.Millisecond), listed.since(before), memory/1024)
	now := time.Now()
	joinedAt.Store(&now)
	if _, err := c.join(ctx, leases); err != nil {
		return err
	}
	took := time.Since(now)
	select {
	case seen := <-joined:
		fmt.Printf("%-8s   one more join: %v (%s), seen by the follower after %v\n", c.name(), took.Round(time.Millisecond),
			s.counters().since(listed), seen.Round(time.Millisecond))
	case <-time.After(10 * time.Second):
		fmt.Printf("%-8s   one more join: %v (%s), not seen by the follower in 10 s\n", c.name(), took.Round(time.Millisecond), s.counters().since(listed))
	case <-ctx.Done():
		return ctx.Err()
	}
	stop()
	<-done
	return nil
}

func push(c chan time.Duration, d time.Duration) {
	select {
	case c <- d:
	default:
	}
}

// heapInUse returns the live heap, bytes.
func heapInUse() int64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}
