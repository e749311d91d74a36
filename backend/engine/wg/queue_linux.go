package wg

import (
	"errors"
	"fmt"
	"os"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// kernelQueue is one queue of a TUN device of the kernel. It belongs to one goroutine.
type kernelQueue struct {
	tun  *kernelTUN
	file *os.File
	raw  syscall.RawConn

	in      []byte
	n       int
	inErr   error
	patient bool
	readFn  func(uintptr) bool
}

func newKernelQueue(t *kernelTUN, file *os.File) (*kernelQueue, error) {
	raw, err := file.SyscallConn()
	if err != nil {
		return nil, fmt.Errorf("use TUN device %s: %w", t.name, err)
	}
	q := &kernelQueue{tun: t, file: file, raw: raw}
	q.readFn = q.readNow
	return q, nil
}

func (q *kernelQueue) read(p []byte) (int, error)    { return q.receive(p, true) }
func (q *kernelQueue) tryRead(p []byte) (int, error) { return q.receive(p, false) }

func (q *kernelQueue) receive(p []byte, patient bool) (int, error) {
	q.in, q.patient = p, patient
	err := q.raw.Read(q.readFn)
	q.in = nil
	if q.tun.closed.Load() || errors.Is(err, os.ErrDeadlineExceeded) { // see hush
		return 0, os.ErrClosed
	}
	if err == nil {
		err = q.inErr
	}
	if err != nil {
		return 0, fmt.Errorf("read from %s: %w", q.tun.name, err)
	}
	return q.n, nil
}

// readNow reads once. It returns false when the poller should wait.
func (q *kernelQueue) readNow(fd uintptr) bool {
	for {
		n, _, errno := unix.RawSyscall(unix.SYS_READ, fd, uintptr(unsafe.Pointer(&q.in[0])), uintptr(len(q.in)))
		q.n, q.inErr = int(n), nil
		if errno != 0 {
			q.n, q.inErr = 0, errno
		}
		switch {
		case q.inErr == nil:
			return true
		case errors.Is(q.inErr, unix.EINTR):
		case errors.Is(q.inErr, unix.EAGAIN):
			q.n, q.inErr = 0, nil
			return !q.patient
		default:
			q.n = 0
			return true
		}
	}
}
