package main

import (
	"context"
	"os"
	"strconv"
	"strings"
	"time"
)

// machine is the CPU time of the whole machine so far, in ticks. Busy excludes processes that run
// niced beside the measurement.
type machine struct{ busy, steal, all float64 }

func readMachine() (m machine) {
	raw, _ := os.ReadFile("/proc/stat")
	first, _, _ := strings.Cut(string(raw), "\n")
	for i, field := range strings.Fields(first) { // cpu user nice system idle iowait irq softirq steal
		n, _ := strconv.ParseFloat(field, 64)
		if i >= 1 && i <= 8 {
			m.all += n
		}
		switch i {
		case 1, 3, 6, 7:
			m.busy += n
		case 8:
			m.steal = n
		}
	}
	return m
}

// stealSince returns the share that the hypervisor took since before, in per cent.
func (m machine) stealSince(before machine) float64 {
	return 100 * (m.steal - before.steal) / max(1, m.all-before.all)
}

// waitQuiet waits until little of the machine is busy, for at most limit.
func waitQuiet(ctx context.Context, limit time.Duration) {
	const little = 0.15
	for end := time.Now().Add(limit); time.Now().Before(end) && ctx.Err() == nil; {
		before := readMachine()
		select {
		case <-time.After(200 * time.Millisecond):
		case <-ctx.Done():
		}
		now := readMachine()
		if now.busy-before.busy+now.steal-before.steal < little*(now.all-before.all) {
			return
		}
	}
}
