package wg

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// kernelTUN is a TUN device of the kernel, opened with IFF_NO_PI and IFF_VNET_HDR.
type kernelTUN struct {
	file    *os.File
	raw     syscall.RawConn
	name    string
	control int // a socket for ioctls, in the interface's network namespace
	closed  atomic.Bool

	// Of the one goroutine that reads.
	in      []byte
	n       int
	inErr   error
	patient bool
	readFn  func(uintptr) bool

	mu      sync.Mutex // guards what follows: receivers take turns
	vector  []unix.Iovec
	outErr  error
	writeFn func(uintptr) bool
}

// openTUN takes over file and turns on what the kernel can leave to us. joinsUDP reports
// whether it takes joined UDP.
func openTUN(file *os.File, name string) (t *kernelTUN, joinsUDP bool, err error) {
	raw, err := file.SyscallConn()
	if err != nil {
		return nil, false, fmt.Errorf("use TUN device %s: %w", name, err)
	}
	t = &kernelTUN{file: file, raw: raw, name: name}
	t.readFn, t.writeFn = t.readNow, t.writeNow
	if joinsUDP, err = t.offload(); err != nil {
		return nil, false, err
	}
	t.control, err = unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, false, fmt.Errorf("open control socket: %w", err)
	}
	return t, joinsUDP, nil
}

// offload asks for super-packets: TCP always, UDP where the kernel has it (Linux 6.2).
func (t *kernelTUN) offload() (joinsUDP bool, err error) {
	const tcp = unix.TUN_F_CSUM | unix.TUN_F_TSO4 | unix.TUN_F_TSO6
	set := func(flags uintptr) (err error) {
		controlErr := t.raw.Control(func(fd uintptr) {
			_, _, errno := unix.Syscall(unix.SYS_IOCTL, fd, unix.TUNSETOFFLOAD, flags)
			if errno != 0 {
				err = fmt.Errorf("turn on offloads of %s: %w", t.name, errno)
			}
		})
		return errors.Join(controlErr, err)
	}
	if set(tcp|unix.TUN_F_USO4|unix.TUN_F_USO6) == nil {
		return true, nil
	}
	return false, set(tcp)
}

func (t *kernelTUN) read(p []byte) (int, error)    { return t.receive(p, true) }
func (t *kernelTUN) tryRead(p []byte) (int, error) { return t.receive(p, false) }

func (t *kernelTUN) receive(p []byte, patient bool) (int, error) {
	t.in, t.patient = p, patient
	err := t.raw.Read(t.readFn)
	t.in = nil
	if t.closed.Load() || errors.Is(err, os.ErrDeadlineExceeded) { // see hush
		return 0, os.ErrClosed
	}
	if err == nil {
		err = t.inErr
	}
	if err != nil {
		return 0, fmt.Errorf("read from %s: %w", t.name, err)
	}
	return t.n, nil
}

// readNow reads once. It returns false when the poller should wait.
func (t *kernelTUN) readNow(fd uintptr) bool {
	for {
		n, _, errno := unix.RawSyscall(unix.SYS_READ, fd, uintptr(unsafe.Pointer(&t.in[0])), uintptr(len(t.in)))
		t.n, t.inErr = int(n), nil
		if errno != 0 {
			t.n, t.inErr = 0, errno
		}
		switch {
		case t.inErr == nil:
			return true
		case errors.Is(t.inErr, unix.EINTR):
		case errors.Is(t.inErr, unix.EAGAIN):
			t.n, t.inErr = 0, nil
			return !t.patient
		default:
			t.n = 0
			return true
		}
	}
}

func (t *kernelTUN) write(pieces [][]byte) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.vector = t.vector[:0]
	for _, p := range pieces {
		if len(p) > 0 {
			v := unix.Iovec{Base: &p[0]}
			v.SetLen(len(p))
			t.vector = append(t.vector, v)
		}
	}
	if err := t.raw.Write(t.writeFn); err != nil {
		return err
	}
	return t.outErr
}

// writeNow writes once: a TUN device takes a packet or drops it.
func (t *kernelTUN) writeNow(fd uintptr) bool {
	_, _, errno := unix.RawSyscall(unix.SYS_WRITEV, fd, uintptr(unsafe.Pointer(&t.vector[0])), uintptr(len(t.vector)))
	t.outErr = nil
	if errno != 0 {
		t.outErr = errno
	}
	return true
}

func (t *kernelTUN) link() (l link, err error) {
	if t.closed.Load() {
		return l, os.ErrClosed
	}
	request, err := unix.NewIfreq(t.name)
	if err == nil {
		err = unix.IoctlIfreq(t.control, unix.SIOCGIFMTU, request)
	}
	if err != nil {
		return l, fmt.Errorf("read MTU of %s: %w", t.name, err)
	}
	l.mtu = int(request.Uint32())
	if err := unix.IoctlIfreq(t.control, unix.SIOCGIFFLAGS, request); err != nil {
		return l, fmt.Errorf("read flags of %s: %w", t.name, err)
	}
	l.up = request.Uint16()&unix.IFF_UP != 0
	return l, nil
}

func (t *kernelTUN) close() error {
	if t.closed.Swap(true) {
		return nil
	}
	return errors.Join(t.file.Close(), unix.Close(t.control))
}
