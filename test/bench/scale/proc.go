package main

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

const ticksPerSecond = 100 // USER_HZ, the same on every Linux

// ticks returns the CPU time of a process in ticks of 10 ms. The kernel scales both numbers
// to the precise run time, so short bursts of work count.
func ticks(pid int) float64 {
	raw, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
	at := bytes.LastIndexByte(raw, ')')
	if err != nil || at < 0 {
		return 0
	}
	fields := strings.Fields(string(raw[at+1:])) // from "state" on: utime is the 12th, stime the 13th
	user, _ := strconv.ParseFloat(fields[11], 64)
	system, _ := strconv.ParseFloat(fields[12], 64)
	return user + system
}

// rss returns the resident set of a process in MB of 2^20 bytes.
func rss(pid int) float64 { return procNumber(pid, "status", "VmRSS:") / 1024 }

// written returns the bytes that a process has written to files on a disk, in whole pages.
func written(pid int) float64 { return procNumber(pid, "io", "write_bytes:") }

// procNumber returns the number behind a word in a file of /proc/PID, 0 when it is absent.
func procNumber(pid int, file, word string) float64 {
	raw, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), file))
	if err != nil {
		return 0
	}
	return numberAfter(raw, word)
}

// numberAfter returns the number behind a word at the beginning of a line.
func numberAfter(text []byte, word string) float64 {
	for line := range strings.Lines(string(text)) {
		if fields := strings.Fields(line); len(fields) > 1 && fields[0] == word {
			n, _ := strconv.ParseFloat(fields[1], 64)
			return n
		}
	}
	return 0
}

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
			t := ticks(pid)
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
