// Package tun owns the TUN device of a WireGuard interface: its queues, the offloads that the
// kernel grants, and what the kernel says of the interface. It knows neither peers nor the
// meaning of a packet.
package tun

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/loden-net/loden/backend/engine/fd"
	"github.com/loden-net/loden/backend/engine/wg/offload"
)

// Files are the open descriptors of a TUN device, opened non-blocking with IFF_TUN, IFF_NO_PI and
// IFF_VNET_HDR. There is at least one queue.
//
// A device with several queues (IFF_MULTI_QUEUE) remembers which queue a flow was written to, and
// from then on gives the flow's packets of the other direction to that queue (tun_flow_update in
// drivers/net/tun.c). If all packets were written to the first queue, all flows would soon be
// read from the first queue; and a flow would change its queue, and its packets their order, when
// the kernel learns the flow and again when it forgets the flow after 3 s. So packets are written
// to a separate descriptor that is attached to no queue (TUNSETQUEUE, IFF_DETACH_QUEUE): from it
// the kernel learns no flow. A hash of a flow's addresses and ports, which no packet changes,
// chooses the queue of the flow (tun_automq_select_queue).
type Files struct {
	Queues []*os.File // each queue brings all packets of its flows
	Writer *os.File   // attached to no queue; nil: packets are written to the first queue
}

// all returns the open files.
func (f Files) all() []*os.File {
	files := slices.Clone(f.Queues)
	if f.Writer != nil {
		files = append(files, f.Writer)
	}
	return files
}

// Close closes the files.
func (f Files) Close() {
	for _, file := range f.all() {
		_ = file.Close() // a second descriptor of the same file may go on
	}
}

// duplicate returns second descriptors of the files, also of some after an error.
func (f Files) duplicate() (out Files, err error) {
	for i, file := range f.all() {
		copied, err := fd.Duplicate(file)
		if err != nil {
			return out, fmt.Errorf("duplicate TUN file: %w", err)
		}
		second := os.NewFile(uintptr(copied), "")
		if i < len(f.Queues) {
			out.Queues = append(out.Queues, second)
		} else {
			out.Writer = second
		}
	}
	return out, nil
}

// Link is the state of the interface in the kernel.
type Link struct {
	Index int  // of the interface, which stays when it gets another name
	MTU   int  // bytes
	Up    bool // administratively
}

// Device is a TUN device of the kernel. Each queue is read by a goroutine of its own; any number
// of goroutines may write.
type Device struct {
	files   Files
	queues  []*Queue
	raw     syscall.RawConn // packets are written to it
	name    string
	control int // a socket for ioctls, in the interface's network namespace
	closed  atomic.Bool

	refused atomic.Uint64 // super-packets that the kernel did not take

	mu      sync.Mutex // guards the fields below: writers take turns
	full    acceptance // of super-packets of equal segments
	short   acceptance // of super-packets with a shorter last segment
	vector  []unix.Iovec
	outErr  error
	writeFn func(uintptr) bool
	writev  func(fd uintptr, vector []unix.Iovec) error // a test plays a kernel here
	split   offload.Split
	copied  []byte // a refused super-packet in a single piece
}

// Open uses the files of the interface with that name and turns on the offloads that the kernel
// has. joinsUDP reports whether the kernel takes joined UDP packets. After an error the caller
// closes the files; otherwise Close does.
func Open(files Files, name string) (t *Device, joinsUDP bool, err error) {
	if len(files.Queues) == 0 {
		return nil, false, fmt.Errorf("use TUN device %s: no queue", name)
	}
	t = &Device{files: files, name: name, writev: writev}
	t.writeFn = t.writeNow
	for _, f := range files.Queues {
		q, err := newQueue(t, f)
		if err != nil {
			return nil, false, err
		}
		t.queues = append(t.queues, q)
	}
	t.raw = t.queues[0].raw
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

// Queues returns the queues of the device, each to be read by one goroutine.
func (t *Device) Queues() []*Queue { return t.queues }

// Duplicate returns second descriptors of the device's files, for another process. The caller
// closes them, also after an error.
func (t *Device) Duplicate() (Files, error) { return t.files.duplicate() }

// offload asks the kernel for super-packets: of TCP always, of UDP where the kernel has them
// (Linux 6.2). An offload is a setting of the device: any descriptor of the device will do.
func (t *Device) offload() (joinsUDP bool, err error) {
	if t.setOffload(tcpOffloads|unix.TUN_F_USO4|unix.TUN_F_USO6) == nil {
		return true, nil
	}
	return false, t.setOffload(tcpOffloads)
}

// tcpOffloads are the offloads that every kernel has.
const tcpOffloads = unix.TUN_F_CSUM | unix.TUN_F_TSO4 | unix.TUN_F_TSO6

func (t *Device) setOffload(flags int) error {
	err := fd.ControlRaw(t.raw, func(fd int) error { return unix.IoctlSetInt(fd, unix.TUNSETOFFLOAD, flags) })
	if err != nil {
		return fmt.Errorf("set offloads of %s: %w", t.name, err)
	}
	return nil
}

// DisableReceiveOffload makes the kernel cut super-packets and complete checksums before the queues
// bring the packets. Super-packets that wait in a queue already still come.
func (t *Device) DisableReceiveOffload() error { return t.setOffload(0) }

// Link asks the kernel for the state of the interface. It returns os.ErrClosed after Close.
func (t *Device) Link() (l Link, err error) {
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
	l.MTU = int(request.Uint32())
	if err := unix.IoctlIfreq(t.control, unix.SIOCGIFFLAGS, request); err != nil {
		return l, fmt.Errorf("read flags of %s: %w", t.name, err)
	}
	l.Up = request.Uint16()&unix.IFF_UP != 0
	if err := unix.IoctlIfreq(t.control, unix.SIOCGIFINDEX, request); err != nil {
		return l, fmt.Errorf("read index of %s: %w", t.name, err)
	}
	l.Index = int(request.Uint32())
	return l, nil
}

// StopReading makes every read of a queue return os.ErrClosed, now and later. Writing goes on.
func (t *Device) StopReading() {
	for _, f := range t.files.Queues {
		_ = f.SetReadDeadline(time.Unix(1, 0)) // fails on a closed file only
	}
}

// Close closes the files. A read that waits returns os.ErrClosed.
func (t *Device) Close() error {
	if t.closed.Swap(true) {
		return nil
	}
	err := unix.Close(t.control)
	for _, f := range t.files.all() {
		err = errors.Join(err, f.Close())
	}
	return err
}
