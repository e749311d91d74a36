package wg

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// TUN are the open descriptors of one TUN device, opened non-blocking with IFF_TUN,
// IFF_NO_PI and IFF_VNET_HDR. At least one is to be read.
//
// A device with several queues (IFF_MULTI_QUEUE) remembers which queue a flow was written to
// and gives the flow's packets of the other direction to that queue from then on
// (tun_flow_update in drivers/net/tun.c). Written to one queue, all flows would soon be read
// from that one; and a flow would change its queue, and its packets their order, when it is
// learned and again when it has been forgotten, after 3 s. So packets are written to a
// descriptor of its own that is attached to no queue (TUNSETQUEUE, IFF_DETACH_QUEUE): from
// such a one nothing is learned. Which queue a flow is on is left to a hash of its addresses
// and ports that no packet changes (tun_automq_select_queue).
type TUN struct {
	Queues []*os.File // each has packets to read, all those of a flow
	Writer *os.File   // attached to no queue; nil: the first queue is written to
}

// all returns the files there are.
func (t TUN) all() []*os.File {
	files := slices.Clone(t.Queues)
	if t.Writer != nil {
		files = append(files, t.Writer)
	}
	return files
}

// Close closes the files.
func (t TUN) Close() {
	for _, f := range t.all() {
		_ = f.Close() // another descriptor of it goes on
	}
}

// kernelTUN is a TUN device of the kernel.
type kernelTUN struct {
	files   TUN
	readers []*kernelQueue
	raw     syscall.RawConn // written to
	name    string
	control int // a socket for ioctls, in the interface's network namespace
	closed  atomic.Bool

	mu      sync.Mutex // guards what follows: receivers take turns
	vector  []unix.Iovec
	outErr  error
	writeFn func(uintptr) bool
}

// openTUN takes over files and turns on what the kernel can leave to us. joinsUDP reports
// whether it takes joined UDP.
func openTUN(files TUN, name string) (t *kernelTUN, joinsUDP bool, err error) {
	if len(files.Queues) == 0 {
		return nil, false, fmt.Errorf("use TUN device %s: no queue", name)
	}
	t = &kernelTUN{files: files, name: name}
	t.writeFn = t.writeNow
	for _, f := range files.Queues {
		q, err := newKernelQueue(t, f)
		if err != nil {
			return nil, false, err
		}
		t.readers = append(t.readers, q)
	}
	t.raw = t.readers[0].raw
	if files.Writer != nil {
		if t.raw, err = files.Writer.SyscallConn(); err != nil {
			return nil, false, fmt.Errorf("use TUN device %s: %w", name, err)
		}
	}
	if joinsUDP, err = t.offload(); err != nil {
		return nil, false, err
	}
	t.control, err = unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, false, fmt.Errorf("open control socket: %w", err)
	}
	return t, joinsUDP, nil
}

func (t *kernelTUN) queues() (out []queue) {
	for _, q := range t.readers {
		out = append(out, q)
	}
	return out
}

// offload asks for super-packets: TCP always, UDP where the kernel has it (Linux 6.2). It
// is the device that is asked, through whichever descriptor.
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
	err := unix.Close(t.control)
	for _, f := range t.files.all() {
		err = errors.Join(err, f.Close())
	}
	return err
}
