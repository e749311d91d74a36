// Package fd owns system calls on the descriptor of an open file or socket that Go's poller
// watches. It never uses os.File.Fd, which would switch the open file description, and with it
// the copies that other processes hold, to blocking mode. It knows no particular kind of file.
package fd

import (
	"errors"
	"syscall"

	"golang.org/x/sys/unix"
)

// Control calls f with the descriptor of c, which stays open meanwhile, and returns the error
// of f, or net.ErrClosed or os.ErrClosed when c is closed. It does not wait for I/O.
func Control(c syscall.Conn, f func(fd int) error) error {
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	return ControlRaw(raw, f)
}

// ControlRaw is Control for a raw connection.
func ControlRaw(raw syscall.RawConn, f func(fd int) error) error {
	var failed error
	err := raw.Control(func(fd uintptr) { failed = f(int(fd)) })
	return errors.Join(err, failed)
}

// Duplicate returns a second descriptor of the open file description of c, closed on exec. The
// caller closes it.
func Duplicate(c syscall.Conn) (fd int, err error) {
	err = Control(c, func(old int) (err error) {
		fd, err = unix.FcntlInt(uintptr(old), unix.F_DUPFD_CLOEXEC, 0)
		return err
	})
	return fd, err
}
