package wg

import (
	"errors"
	"fmt"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Confine gives up, for the whole process and for good, every privilege that a running
// engine does not need: all capabilities but CAP_NET_ADMIN, which marks packets and sizes
// socket buffers, and CAP_NET_BIND_SERVICE, for a listen port below 1024; new ones through
// exec; and memory dumps, which would hold keys. Call it when the TUN device is open.
//
// It fails with ErrCgo in a program built with cgo, where Go cannot reach every thread.
func Confine() error {
	if err := everyThread(unix.SYS_PRCTL, unix.PR_SET_NO_NEW_PRIVS, 1, 0); err != nil {
		return fmt.Errorf("forbid new privileges: %w", err)
	}
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil { // of the process, not of a thread
		return fmt.Errorf("forbid memory dumps: %w", err)
	}
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var have [2]unix.CapUserData
	if err := unix.Capget(&header, &have[0]); err != nil {
		return fmt.Errorf("read capabilities: %w", err)
	}
	const keep = 1<<unix.CAP_NET_ADMIN | 1<<unix.CAP_NET_BIND_SERVICE
	want := [2]unix.CapUserData{{Effective: keep & have[0].Permitted, Permitted: keep & have[0].Permitted}}
	if err := everyThread(unix.SYS_CAPSET, uintptr(unsafe.Pointer(&header)), uintptr(unsafe.Pointer(&want[0])), 0); err != nil {
		return fmt.Errorf("drop capabilities: %w", err)
	}
	return nil
}

// ErrCgo is why Confine does nothing in a program built with cgo.
var ErrCgo = errors.New("not possible in a program built with cgo")

// everyThread makes a system call on every thread of the process. Pointers among the
// arguments stay where they are until it returns.
//
//go:uintptrescapes
func everyThread(trap, a1, a2, a3 uintptr) error {
	_, _, errno := syscall.AllThreadsSyscall(trap, a1, a2, a3)
	switch {
	case errno == 0:
		return nil
	case errors.Is(errno, syscall.ENOTSUP):
		return ErrCgo
	}
	return errno
}
