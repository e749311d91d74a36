package wg

import (
	"fmt"
	"net/netip"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/loden-net/loden/backend/engine/wg/uapi"
	"github.com/loden-net/loden/config/opt"
)

// The zone of an endpoint is the interface of a link-local address. In the device it is the
// interface's number, as the kernel has it in socket addresses; in UAPI it is the interface's
// name, as wg(8) and wireguard-go have it, or the number.

// resolve turns the zones of a request's endpoints into numbers. Errors carry a unix.Errno.
func (d *Device) resolve(want *uapi.Request) error {
	for i := range want.Peers {
		remote, ok := want.Peers[i].Endpoint.Get()
		if !ok || remote.Addr().Zone() == "" {
			continue
		}
		a, err := d.numbered(remote.Addr())
		if err != nil {
			return err
		}
		want.Peers[i].Endpoint = opt.Some(netip.AddrPortFrom(a, remote.Port()))
	}
	return nil
}

// numbered returns an address whose zone is a number. A number is not looked up, since its
// interface may be yet to come; a name that looks like a number is a name first, as in
// getaddrinfo(3). Number 0 means no zone.
func (d *Device) numbered(a netip.Addr) (netip.Addr, error) {
	n, known := d.binder.interfaceIndex(a.Zone())
	if !known {
		given, err := strconv.ParseUint(a.Zone(), 10, 32)
		if err != nil {
			return a, fmt.Errorf("no interface %.40q for endpoint: %w", a.Zone(), unix.EINVAL)
		}
		n = uint32(given)
	}
	if n == 0 {
		return a.WithZone(""), nil
	}
	return a.WithZone(strconv.FormatUint(uint64(n), 10)), nil
}

// named returns an address whose zone is the name of an interface, or its number where the
// interface has gone.
func (d *Device) named(a netip.Addr) netip.Addr {
	if a.Zone() == "" {
		return a // the usual case, without the error of an empty number
	}
	n, err := strconv.ParseUint(a.Zone(), 10, 32)
	if err != nil {
		return a
	}
	name, known := d.binder.interfaceName(uint32(n))
	if !known {
		return a
	}
	return a.WithZone(name)
}
