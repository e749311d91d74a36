package engine

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// TUNPath is where the kernel offers TUN devices.
const TUNPath = "/dev/net/tun"

// openTUN attaches to the TUN device with that name, and makes it when there is none. It
// carries bare IP packets with a virtio header, which lets 64 KiB segments through whole.
func openTUN(name string) (*os.File, error) {
	fd, err := unix.Open(TUNPath, unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w (%s)", TUNPath, err, tunRemedy)
	}
	if err := attach(fd, name); err != nil {
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

func attach(fd int, name string) error {
	request, err := unix.NewIfreq(name)
	if err != nil {
		return err
	}
	request.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI | unix.IFF_VNET_HDR)
	err = unix.IoctlIfreq(fd, unix.TUNSETIFF, request)
	switch {
	case errors.Is(err, unix.EBUSY):
		return fmt.Errorf("%w: another process is attached to it", err)
	case errors.Is(err, unix.EINVAL):
		return fmt.Errorf("%w: an interface of another kind has that name", err)
	}
	return err
}

// keepTUN makes the device outlive every process that is attached to it (IFF_PERSIST).
func keepTUN(file *os.File) error {
	raw, err := file.SyscallConn()
	if err != nil {
		return fmt.Errorf("keep TUN device: %w", err)
	}
	var failed error
	if err := raw.Control(func(fd uintptr) { failed = unix.IoctlSetInt(int(fd), unix.TUNSETPERSIST, 1) }); err != nil {
		return fmt.Errorf("keep TUN device: %w", err)
	}
	if failed != nil {
		return fmt.Errorf("keep TUN device: %w", failed)
	}
	return nil
}
