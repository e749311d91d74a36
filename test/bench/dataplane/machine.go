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

func cpuSeconds(pid int) float64 {
	raw, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
	at := bytes.LastIndexByte(raw, ')')
	if err != nil || at < 0 {
		return 0
	}
	fields := strings.Fields(string(raw[at+1:])) // from "state" on: utime is the 12th, stime the 13th
	user, _ := strconv.ParseFloat(fields[11], 64)
	system, _ := strconv.ParseFloat(fields[12], 64)
	return (user + system) / ticksPerSecond
}

// rss returns the resident set of a process in MB.
func rss(pid int) float64 { return procNumber(pid, "status", "VmRSS:") / 1024 }

// procNumber returns the number behind a word in a file of /proc/PID.
func procNumber(pid int, file, word string) float64 {
	raw, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), file))
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(raw)) {
		if fields := strings.Fields(line); len(fields) > 1 && fields[0] == word {
			n, _ := strconv.ParseFloat(fields[1], 64)
			return n
		}
	}
	return 0
}

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
