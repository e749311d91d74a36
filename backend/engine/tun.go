package engine

import (
	"errors"
	"fmt"
	"os"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/loden-net/loden/backend/engine/fd"
	"github.com/loden-net/loden/backend/engine/wg/tun"
)

// TUNPath is where the kernel offers TUN devices.
const TUNPath = "/dev/net/tun"

// maxQueues is how many queues a TUN device is given at most.
const maxQueues = 8

// queuesFor returns how many queues of the TUN device the engine reads where Go schedules on n
// processors: one for each four processors, rounded up, since a sender and its workers use
// four. Up to four processors a single reader can keep every worker busy.
func queuesFor(n int) int { return min(max(1, (n+3)/4), maxQueues) }

// openTUN attaches to the TUN device with that name, or creates it with that number of queues.
// An existing device keeps the kind that it was created with: it has a single queue, or may be
// read from any number of queues. The device carries bare IP packets with a virtio header,
// which lets 64 KiB segments through whole.
func openTUN(name string, queues int) (files tun.Files, err error) {
	if err := unattached(name); err != nil {
		return files, fmt.Errorf("attach to TUN device %s: %w", name, err)
	}
	several := queues > 1
	first, err := openQueue(name, several)
	if errors.Is(err, errOtherKind) { // it may exist with the other number of queues
		several = !several
		first, err = openQueue(name, several)
	}
	if err != nil {
		return files, err
	}
	if !several || queues == 1 {
		return tun.Files{Queues: []*os.File{first}}, nil
	}
	defer func() {
		if err != nil {
			files.Close()
		}
	}()
	files.Writer = first // detached before the device has another queue, so that no packet waits in it
	if err := detach(first); err != nil {
		return files, fmt.Errorf("detach from TUN device %s: %w", name, err)
	}
	for range queues {
		q, err := openQueue(name, several)
		if err != nil {
			return files, err
		}
		files.Queues = append(files.Queues, q)
	}
	return files, nil
}

// unattached returns EBUSY when another process is attached to a device with several queues:
// the kernel would let two processes share it, but not a device with a single queue.
func unattached(name string) error {
	link, err := netlink.LinkByName(name)
	if err != nil {
		return nil // the device does not exist, or attaching reports the error
	}
	if t, ok := link.(*netlink.Tuntap); ok && t.Flags&netlink.TUNTAP_MULTI_QUEUE != 0 && t.Queues+t.DisabledQueues > 0 {
		return fmt.Errorf("%w: another process is attached to it", unix.EBUSY)
	}
	return nil
}

// openQueue attaches a new descriptor to the device, which the kernel creates if it does not exist.
func openQueue(name string, several bool) (*os.File, error) {
	fd, err := unix.Open(TUNPath, unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w (%s)", TUNPath, err, tunRemedy)
	}
	if err := attach(fd, name, several); err != nil {
		_ = unix.Close(fd)
		return nil, fmt.Errorf("attach to TUN device %s: %w", name, err)
	}
	return os.NewFile(uintptr(fd), TUNPath), nil
}

// CheckTUN reports why this host cannot create a TUN device, with the remedy, or nil. It creates
// no device: opening the driver attaches to none.
func CheckTUN() error {
	f, err := os.OpenFile(TUNPath, os.O_RDWR, 0)
	if err != nil {
		return fmt.Errorf("%w (%s)", err, tunRemedy)
	}
	return f.Close()
}

// tunRemedy tells an operator how to provide a missing TUN driver.
const tunRemedy = "load the driver with `modprobe tun`; in a container, pass the device in with --device " + TUNPath

// errOtherKind means that an interface exists to which this process cannot attach as asked.
var errOtherKind = errors.New("an interface of another kind has that name")

func attach(fd int, name string, several bool) error {
	request, err := unix.NewIfreq(name)
	if err != nil {
		return err
	}
	flags := uint16(unix.IFF_TUN | unix.IFF_NO_PI | unix.IFF_VNET_HDR)
	if several {
		flags |= unix.IFF_MULTI_QUEUE
	}
	request.SetUint16(flags)
	err = unix.IoctlIfreq(fd, unix.TUNSETIFF, request)
	switch {
	case errors.Is(err, unix.EBUSY):
		return fmt.Errorf("%w: another process is attached to it", err)
	case errors.Is(err, unix.EINVAL):
		return fmt.Errorf("%w: %w", err, errOtherKind)
	}
	return err
}

// detach turns a queue into a descriptor that accepts packets and has no queue.
func detach(file *os.File) error {
	request, err := unix.NewIfreq("")
	if err != nil {
		return err
	}
	request.SetUint16(unix.IFF_DETACH_QUEUE)
	return fd.Control(file, func(fd int) error { return unix.IoctlIfreq(fd, unix.TUNSETQUEUE, request) })
}

// isMultiQueue reports whether the device of a descriptor may have several queues.
func isMultiQueue(file *os.File) (several bool, err error) {
	request, err := unix.NewIfreq("")
	if err != nil {
		return false, err
	}
	err = fd.Control(file, func(fd int) error { return unix.IoctlIfreq(fd, unix.TUNGETIFF, request) })
	return request.Uint16()&unix.IFF_MULTI_QUEUE != 0, err
}

// keepTUN makes the device outlive every process that is attached to it (IFF_PERSIST).
func keepTUN(file *os.File) error {
	if err := fd.Control(file, func(fd int) error { return unix.IoctlSetInt(fd, unix.TUNSETPERSIST, 1) }); err != nil {
		return fmt.Errorf("keep TUN device: %w", err)
	}
	return nil
}
