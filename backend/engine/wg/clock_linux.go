package wg

import (
	"time"

	"golang.org/x/sys/unix"
)

// asleep returns the time that the machine has slept since it started: CLOCK_BOOTTIME less
// CLOCK_MONOTONIC.
func asleep() time.Duration {
	var boot, monotonic unix.Timespec
	if unix.ClockGettime(unix.CLOCK_MONOTONIC, &monotonic) != nil || unix.ClockGettime(unix.CLOCK_BOOTTIME, &boot) != nil {
		return 0 // not on Linux since 2.6.39
	}
	return time.Duration(boot.Nano() - monotonic.Nano())
}
