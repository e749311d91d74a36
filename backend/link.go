package backend

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strconv"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/loden-net/loden/backend/dump"
	"github.com/loden-net/loden/config/diff"
	"github.com/loden-net/loden/config/opt"
	"github.com/loden-net/loden/config/prefix"
)

// link is the interface as it was observed. The zero value is an interface that was just made.
type link struct {
	kind      string // the kernel's name for it
	mtu       int    // bytes
	up        bool   // administratively
	addresses []netip.Prefix
}

const (
	kernelLink = "wireguard"
	tunLink    = "tun"
)

// ours reports whether the link is of a kind that Loden makes. Name and kind are its mark.
func (l link) ours() bool { return l.kind == kernelLink || l.kind == tunLink }

// linkEdit is a single change of an existing interface.
type linkEdit struct {
	verb    linkVerb
	mtu     int          // for setMTU, bytes
	address netip.Prefix // for addAddress and deleteAddress
}

type linkVerb uint8

const (
	setUp linkVerb = iota
	setMTU
	addAddress
	deleteAddress
)

// describe returns the verb and the object of a diff.Change.
func (e linkEdit) describe(name string) (verb, object string) {
	switch e.verb {
	case setMTU:
		return "set", "MTU " + strconv.Itoa(e.mtu) + " of " + name
	case addAddress:
		return "add", "address " + e.address.String() + " to " + name
	case deleteAddress:
		return "delete", "address " + e.address.String() + " from " + name
	case setUp:
	}
	return "set", name + " up"
}

// linkEdits compares MTU and addresses.
func linkEdits(have link, want Config) []linkEdit {
	var edits []linkEdit
	if have.mtu != want.MTU {
		edits = append(edits, linkEdit{verb: setMTU, mtu: want.MTU})
	}
	var wanted []netip.Prefix
	for f, a := range want.Addresses.All() {
		if f == opt.V6 && want.MTU < MinIPv6MTU {
			continue
		}
		wanted = append(wanted, netip.PrefixFrom(a, f.Bits()))
	}
	add, del := diff.Sets(have.addresses, wanted)
	for _, a := range add {
		edits = append(edits, linkEdit{verb: addAddress, address: a})
	}
	if want.Removals == RemoveNone {
		del = nil
	}
	for _, a := range del {
		edits = append(edits, linkEdit{verb: deleteAddress, address: a})
	}
	return edits
}

// kernelLinks are the interfaces of this network namespace, by rtnetlink.
type kernelLinks struct{ handle *netlink.Handle }

func openLinks() (kernelLinks, error) {
	h, err := netlink.NewHandle(unix.NETLINK_ROUTE) // other protocols may be missing from the kernel
	return kernelLinks{h}, err
}

func (k kernelLinks) close() { k.handle.Close() }

// observe lists the interface. Link-local IPv6 addresses, which the kernel gives to a TUN
// device by itself, are left out: they are the kernel's.
func (k kernelLinks) observe(name string) (opt.Option[link], error) {
	l, err := k.handle.LinkByName(name)
	if _, missing := errors.AsType[netlink.LinkNotFoundError](err); missing {
		return opt.None[link](), nil
	}
	if err != nil {
		return opt.None[link](), fmt.Errorf("list interface %s: %w", name, err)
	}
	out := link{kind: l.Type(), mtu: l.Attrs().MTU, up: l.Attrs().Flags&net.FlagUp != 0}
	if t, ok := l.(*netlink.Tuntap); ok {
		out.kind = map[netlink.TuntapMode]string{netlink.TUNTAP_MODE_TUN: tunLink, netlink.TUNTAP_MODE_TAP: "tap"}[t.Mode]
	}
	addrs, err := dump.Whole(func() ([]netlink.Addr, error) { return k.handle.AddrList(l, netlink.FAMILY_ALL) })
	if err != nil {
		return opt.None[link](), fmt.Errorf("list addresses of %s: %w", name, err)
	}
	for _, a := range addrs {
		if addr, ok := prefix.FromIPNet(*a.IPNet); ok && a.Scope != unix.RT_SCOPE_LINK {
			out.addresses = append(out.addresses, addr)
		}
	}
	return opt.Some(out), nil
}

// edit looks the interface up and changes it.
func (k kernelLinks) edit(name string, e linkEdit) error {
	l, err := k.handle.LinkByName(name)
	if err != nil {
		return err
	}
	n := prefix.IPNet(e.address)
	switch e.verb {
	case setMTU:
		return k.handle.LinkSetMTU(l, e.mtu)
	case addAddress:
		err := k.handle.AddrAdd(l, &netlink.Addr{IPNet: n, Flags: unix.IFA_F_NODAD})
		if errors.Is(err, unix.EACCES) && e.address.Addr().Is6() && allowIPv6(name) == nil {
			err = k.handle.AddrAdd(l, &netlink.Addr{IPNet: n, Flags: unix.IFA_F_NODAD})
		}
		if errors.Is(err, unix.EACCES) && e.address.Addr().Is6() {
			return fmt.Errorf("%w: IPv6 is switched off for this interface: `sysctl -w net.ipv6.conf.%s.disable_ipv6=0`", err, name)
		}
		return err
	case deleteAddress:
		return k.handle.AddrDel(l, &netlink.Addr{IPNet: n})
	case setUp:
	}
	return k.handle.LinkSetUp(l)
}

// allowIPv6 switches IPv6 on for the interface, which is Loden's own: on a host with
// net.ipv6.conf.default.disable_ipv6 = 1, every new interface begins without IPv6.
func allowIPv6(name string) error {
	return os.WriteFile("/proc/sys/net/ipv6/conf/"+name+"/disable_ipv6", []byte("0"), 0)
}

func (k kernelLinks) add(name string) error {
	attrs := netlink.NewLinkAttrs()
	attrs.Name = name
	if err := k.handle.LinkAdd(&netlink.Wireguard{LinkAttrs: attrs}); err != nil {
		return fmt.Errorf("add kernel WireGuard interface %s: %w", name, err)
	}
	return nil
}

func (k kernelLinks) leads(name string, to netip.Addr) bool {
	l, err := k.handle.LinkByName(name)
	if err != nil {
		return false
	}
	routes, err := k.handle.RouteGet(to.AsSlice())
	return err == nil && len(routes) > 0 && routes[0].LinkIndex == l.Attrs().Index
}

func (k kernelLinks) remove(name string) error {
	l, err := k.handle.LinkByName(name)
	if err == nil {
		err = k.handle.LinkDel(l)
	}
	if _, missing := errors.AsType[netlink.LinkNotFoundError](err); missing || errors.Is(err, unix.ENODEV) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("delete interface %s: %w", name, err)
	}
	return nil
}
