package tun

import (
	"errors"
	"fmt"
	"os"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Queue is a queue of a TUN device: it brings the packets of its flows in order. A single
// goroutine reads it.
type Queue struct {
	tun  *Device
	file *os.File
	raw  syscall.RawConn

	in     []byte
	n      int
	inErr  error
	waits  bool // for a packet
	readFn func(uintptr) bool
}

func newQueue(t *Device, file *os.File) (*Queue, error) {
	raw, err := file.SyscallConn()
	if err != nil {
		return nil, fmt.Errorf("use TUN device %s: %w", t.name, err)
	}
	q := &Queue{tun: t, file: file, raw: raw}
	q.readFn = q.readNow
	return q, nil
}

// Read waits for a packet and reads it, virtio header first. It returns os.ErrClosed after Close
// and StopReading.
func (q *Queue) Read(p []byte) (int, error) { return q.receive(p, true) }

// TryRead is Read without waiting: it returns 0 when the queue is empty.
func (q *Queue) TryRead(p []byte) (int, error) { return q.receive(p, false) }

func (q *Queue) receive(p []byte, waits bool) (int, error) {
	q.in, q.waits = p, waits
	err := q.raw.Read(q.readFn)
	q.in = nil
	if q.tun.closed.Load() || errors.Is(err, os.ErrDeadlineExceeded) { // see StopReading
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

// readNow reads a packet. It returns false when the poller should wait. The file does not block. The
// system call is raw for the reason at conn's sendmmsg, where the benchmark is named and the condition
// under which it becomes a plain call.
func (q *Queue) readNow(fd uintptr) bool {
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
			return !q.waits
		default:
			q.n = 0
			return true
		}
	}
}
