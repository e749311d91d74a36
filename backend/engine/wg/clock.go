package wg

import (
	"sync/atomic"
	"time"
)

// clock is the device's own clock: CLOCK_BOOTTIME of the kernel, which goes on while the machine
// sleeps. White paper section 6 bounds the age of keys in real time, and a peer that stayed awake has
// forgotten them. Go's clock (CLOCK_MONOTONIC) stands still meanwhile.
//
// Asking the kernel for CLOCK_BOOTTIME is a system call, too slow for every packet. The clock reads
// Go's clock, which is not, and asks only when the wall clock has moved by another amount: after a
// sleep, and after a step of the wall clock, which changes nothing here. The wall clock is compared
// every compareEvery only: a reading costs as much as the one of Go's clock, and a ping needs eight. A
// kernel that wakes up resumes its devices for longer than that before a process runs.
type clock struct {
	monotonic, wall func() time.Duration // since any moment
	asleep          func() time.Duration // that the machine has slept in all, since any moment

	begin    time.Duration // monotonic reading at moment 0
	awoke    time.Duration // asleep's reading at the start
	compared atomic.Int64  // monotonic reading at the last comparison
	drift    atomic.Int64  // wall less monotonic, when asleep was read last
	slept    atomic.Int64  // since the start
}

const (
	driftStep    = 100 * time.Millisecond // of the wall clock against Go's clock, before the kernel is asked
	compareEvery = time.Millisecond
)

// newClock returns a clock that shows now at this moment.
func newClock(now moment) *clock {
	began := time.Now()
	return newClockOf(now, func() time.Duration { return time.Since(began) },
		func() time.Duration { return time.Duration(time.Now().UnixNano()) }, asleep)
}

// newClockOf is newClock with readings of its own.
func newClockOf(now moment, monotonic, wall, asleep func() time.Duration) *clock {
	c := &clock{monotonic: monotonic, wall: wall, asleep: asleep, awoke: asleep()}
	began := monotonic()
	c.begin = began - now
	c.compared.Store(int64(began))
	c.drift.Store(int64(wall() - began))
	return c
}

// now returns the present moment. It never goes back.
func (c *clock) now() moment {
	monotonic := c.monotonic()
	if monotonic-time.Duration(c.compared.Load()) >= compareEvery {
		c.compare(monotonic)
	}
	return monotonic - c.begin + time.Duration(c.slept.Load())
}

// compare asks the kernel for the time that the machine has slept, if the wall clock has moved by
// another amount than Go's clock.
func (c *clock) compare(monotonic time.Duration) {
	drift := int64(c.wall() - monotonic)
	if d := drift - c.drift.Load(); d > int64(driftStep) || d < -int64(driftStep) {
		slept := int64(c.asleep() - c.awoke)
		for before := c.slept.Load(); slept > before && !c.slept.CompareAndSwap(before, slept); before = c.slept.Load() {
		}
		c.drift.Store(drift)
	}
	c.compared.Store(int64(monotonic))
}
