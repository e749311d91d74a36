package main

import (
	"context"
	"strconv"
	"strings"
	"time"

	"github.com/loden-net/loden/test/bench/proc"
)

// written returns the bytes that a process has written to files on a disk, in whole pages.
func written(pid int) float64 { return proc.Number(pid, "io", "write_bytes:") }

// collected returns the bytes that a Go program has allocated, from the lines that
// GODEBUG=gctrace=1 left in its log: the growth of the heap between each collection and the
// next collection. It is the measure for a build without the metric, exact to a collection.
func collected(log []byte) (total float64) {
	live := 0.0
	for line := range strings.Lines(string(log)) {
		if !strings.HasPrefix(line, "gc ") {
			continue
		}
		for field := range strings.FieldsSeq(line) { // the sizes are "4->5->1", in MB: at the start, at the end, live
			if sizes := strings.Split(field, "->"); len(sizes) == 3 {
				start, _ := strconv.ParseFloat(sizes[0], 64)
				total += max(0, start-live)
				live, _ = strconv.ParseFloat(sizes[2], 64)
			}
		}
	}
	return total * (1 << 20)
}

// quiet waits until the processes need at most a tick in half a second, and returns the ticks
// of each process at that time. It gives up at the limit.
func quiet(ctx context.Context, limit time.Duration, pids ...int) []float64 {
	read := func() (out []float64, sum float64) {
		for _, pid := range pids {
			t := proc.Ticks(pid)
			out, sum = append(out, t), sum+t
		}
		return out, sum
	}
	_, before := read()
	for end := time.Now().Add(limit); ; {
		wait(ctx, 500*time.Millisecond)
		now, sum := read()
		if sum-before <= 1 || time.Now().After(end) || ctx.Err() != nil {
			return now
		}
		before = sum
	}
}

// wait blocks for d or until ctx is done.
func wait(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}
