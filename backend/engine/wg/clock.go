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
// sleep, and after a step of the wall clock, which changes nothing here.
type clock struct {
	readings func() (monotonic, wall time.Duration) // since any moment
	asleep   func() time.Duration                   // that the machine has slept in all, since any moment

	begin time.Duration // monotonic reading at moment 0
	awoke time.Duration // asleep's reading at the start
	drift atomic.Int64  // wall less monotonic, when asleep was read last
	slept atomic.Int64  // since the start
}

// driftStep is how far the wall clock may move against Go's clock before the kernel is asked.
const driftStep = 100 * time.Millisecond

// newClock returns a clock that shows now at this moment.
func newClock(now moment) *clock {
	began := time.Now()
	return newClockOf(now, func() (monotonic, wall time.Duration) {
		t := time.Now()
		return t.Sub(began), time.Duration(t.UnixNano())
	}, asleep)
}

// newClockOf is newClock with readings of its own.
func newClockOf(now moment, readings func() (monotonic, wall time.Duration), asleep func() time.Duration) *clock {
	c := &clock{readings: readings, asleep: asleep, awoke: asleep()}
	monotonic, wall := readings()
	c.begin = monotonic - now
	c.drift.Store(int64(wall - monotonic))
	return c
}

// now returns the present moment. It never goes back.
func (c *clock) now() moment {
	monotonic, wall := c.readings()
	drift := int64(wall - monotonic)
	if d := drift - c.drift.Load(); d > int64(driftStep) || d < -int64(driftStep) {
		slept := int64(c.asleep() - c.awoke)
		for before := c.slept.Load(); slept > before && !c.slept.CompareAndSwap(before, slept); before = c.slept.Load() {
		}
		c.drift.Store(drift)
	}
	return monotonic - c.begin + time.Duration(c.slept.Load())
}
