package main

import (
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// This file has everything that loden-cni does to the scheduling of other plugins. Both settings
// were measured (docs/cni.md, "Cost"); without them plugins are slower and work the same.
// `make bench-cni` measures an ADD with and without them: they may go when the difference is
// below 5 %.

// tuningEnv switches the tuning off when its value is "off".
const tuningEnv = "LODEN_CNI_TUNING"

// slack is how late a timer of a plugin may fire.
const slack = 2 * time.Millisecond

// tuneForWait prepares the calling thread to start a plugin and to wait for it.
func tuneForWait() {
	if os.Getenv(tuningEnv) != "off" {
		setSlack()
	}
}

// tuneForExec prepares the calling thread to be replaced by a plugin.
func tuneForExec() {
	if os.Getenv(tuningEnv) != "off" {
		setSlack()
		doubleSlice()
	}
}

// setSlack sets the timer slack of the program that the calling thread starts or becomes next,
// and of that program's children: prctl(2), PR_SET_TIMERSLACK. Plugins are Go programs. Go's
// monitor thread sleeps 20 µs between two looks at a program that enters the kernel often, as
// plugins do: hundreds of timer interrupts and thread switches in a bridge with a host-local.
//
// The slack belongs to a thread. When Go moves the goroutine to another thread before the start,
// or a filter of system calls refuses, the plugin runs without slack.
func setSlack() { _ = unix.Prctl(unix.PR_SET_TIMERSLACK, uintptr(slack.Nanoseconds()), 0, 0, 0) }

// doubleSlice doubles the time slice of the program that the calling thread becomes:
// sched_setattr(2), since Linux 6.12. A thread with a shorter slice may then preempt the plugin.
// The bridge plugin needs that: its last call wakes a kernel worker, which makes the pod's IPv6
// address usable. A bridge plugin that looks before the worker has run sleeps 50 ms. When the
// kernel refuses, the slice stays as it is.
func doubleSlice() {
	attr, err := unix.SchedGetAttr(0, 0)
	if err != nil || attr.Policy != unix.SCHED_NORMAL {
		return // other policies, which an operator chose, have no slices
	}
	attr.Runtime *= 2
	_ = unix.SchedSetAttr(0, attr, 0)
}
