// Package proc reads what the kernel counts for a process, for the benchmarks. It knows nothing of
// the processes. A process that has gone counts as 0.
package proc

import (
	"bytes"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// TicksPerSecond is USER_HZ, the same on every Linux.
const TicksPerSecond = 100

// Ticks returns the CPU time of a process in ticks of 10 ms. The kernel scales both numbers
// to the precise run time, so short bursts of work count.
func Ticks(pid int) float64 {
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

// RSS returns the resident set of a process in MB of 2^20 bytes.
func RSS(pid int) float64 { return Number(pid, "status", "VmRSS:") / 1024 }

// Number returns the number behind a word in a file of /proc/PID, 0 when it is absent.
func Number(pid int, file, word string) float64 {
	raw, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), file))
	if err != nil {
		return 0
	}
	return NumberAfter(raw, word)
}

// NumberAfter returns the number behind a word at the beginning of a line, 0 when it is absent.
func NumberAfter(text []byte, word string) float64 {
	for line := range strings.Lines(string(text)) {
		if fields := strings.Fields(line); len(fields) > 1 && fields[0] == word {
			n, _ := strconv.ParseFloat(fields[1], 64)
			return n
		}
	}
	return 0
}
