package engine

import (
	"errors"
	"fmt"
	"os"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/loden-net/loden/backend/engine/wg"
)

// TUNPath is where the kernel offers TUN devices.
const TUNPath = "/dev/net/tun"

// maxQueues is how many queues a TUN device is given at most.
const maxQueues = 8

// queuesFor returns how many queues of the TUN device are read where Go schedules on n
// processors: one for each four begun, since a sender and its hands are four; but one alone
// up to four, where as many hands as there are can be kept busy by one that reads.
func queuesFor(n int) int { return min(max(1, (n+3)/4), maxQueues) }

// openTUN attaches to the TUN device with that name, and makes it when there is none, with
// so many queues. One that is there keeps what it was made with: it has only one, or may be
// read from any number of them. It carries bare IP packets with a virtio header, which lets
// 64 KiB segments through whole.
func openTUN(name string, queues int) (files wg.TUN, err error) {
	if err := unattached(name); err != nil {
		return files, fmt.Errorf("attach to TUN device %s: %w", name, err)
	}
	several := queues > 1
	first, err := openQueue(name, several)
	if errors.Is(err, errOtherKind) { // or with the other number of queues
		several = !several
		first, err = openQueue(name, several)
	}
	if err != nil {
		return files, err
	}
	if !several || queues == 1 {
		return wg.TUN{Queues: []*os.File{first}}, nil
	}
	defer func() {
		if err != nil {
			files.Close()
		}
	}()
	files.Writer = first // before there is a queue, so that it gets no packet
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
// the kernel would let two share it. With one queue it does not.
func unattached(name string) error {
	link, err := netlink.LinkByName(name)
	if err != nil {
		return nil // there is none, or attaching says what is wrong
	}
	if t, ok := link.(*netlink.Tuntap); ok && t.Flags&netlink.TUNTAP_MULTI_QUEUE != 0 && t.Queues+t.DisabledQueues > 0 {
		return fmt.Errorf("%w: another process is attached to it", unix.EBUSY)
	}
	return nil
}

// openQueue attaches a new descriptor to the device, which is made when there is none.
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

// CheckTUN reports why no TUN device can be made on this host, with the remedy, or nil. It
// makes none: opening the driver attaches to nothing.
func CheckTUN() error {
	f, err := os.OpenFile(TUNPath, os.O_RDWR, 0)
	if err != nil {
		return fmt.Errorf("%w (%s)", err, tunRemedy)
	}
	return f.Close()
}

// tunRemedy is what an operator does about a missing TUN driver.
const tunRemedy = "load the driver with `modprobe tun`; in a container, pass the device in with --device " + TUNPath

// errOtherKind is an interface that cannot be attached to as asked.
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

// detach leaves a descriptor that can be written to and has no queue.
func detach(file *os.File) error {
	request, err := unix.NewIfreq("")
	if err != nil {
		return err
	}
	request.SetUint16(unix.IFF_DETACH_QUEUE)
	return control(file, func(fd int) error { return unix.IoctlIfreq(fd, unix.TUNSETQUEUE, request) })
}

// hasSeveralQueues reports whether the device of a descriptor may have several queues.
func hasSeveralQueues(file *os.File) (several bool, err error) {
	request, err := unix.NewIfreq("")
	if err != nil {
		return false, err
	}
	err = control(file, func(fd int) error { return unix.IoctlIfreq(fd, unix.TUNGETIFF, request) })
	return request.Uint16()&unix.IFF_MULTI_QUEUE != 0, err
}

// keepTUN makes the device outlive every process that is attached to it (IFF_PERSIST).
func keepTUN(file *os.File) error {
	if err := control(file, func(fd int) error { return unix.IoctlSetInt(fd, unix.TUNSETPERSIST, 1) }); err != nil {
		return fmt.Errorf("keep TUN device: %w", err)
	}
	return nil
}

// control calls f with the descriptor of file.
func control(file *os.File, f func(fd int) error) error {
	raw, err := file.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	err = raw.Control(func(fd uintptr) { failed = f(int(fd)) })
	return errors.Join(err, failed)
}
