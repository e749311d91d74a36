package backend

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"github.com/loden-net/loden/config/diff"
	"github.com/loden-net/loden/config/opt"
)

// link is the interface as it is now. The zero value is one that was just made.
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

// ours reports whether the link is one that Loden makes. Name and kind are its mark.
func (l link) ours() bool { return l.kind == kernelLink || l.kind == tunLink }

// readLink lists the interface. Link-local IPv6 addresses, which the kernel gives to a TUN
// device by itself, are not listed: they are not ours.
func readLink(h *netlink.Handle, name string) (opt.Option[link], error) {
	l, err := h.LinkByName(name)
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
	addrs, err := addresses(h, l)
	if err != nil {
		return opt.None[link](), fmt.Errorf("list addresses of %s: %w", name, err)
	}
	for _, a := range addrs {
		if prefix, ok := prefixOf(*a.IPNet); ok && a.Scope != unix.RT_SCOPE_LINK {
			out.addresses = append(out.addresses, prefix)
		}
	}
	return opt.Some(out), nil
}

// addresses lists until the kernel gave a list that no change interrupted.
func addresses(h *netlink.Handle, l netlink.Link) (list []netlink.Addr, err error) {
	for range 5 {
		list, err = h.AddrList(l, netlink.FAMILY_ALL)
		if !errors.Is(err, netlink.ErrDumpInterrupted) {
			return list, err
		}
	}
	return list, err
}

// linkChanges compares MTU and addresses.
func (d *Device) linkChanges(have link, want Config) []diff.Change {
	var changes []diff.Change
	if have.mtu != want.MTU {
		changes = append(changes, d.linkChange("set", "MTU "+strconv.Itoa(want.MTU)+" of "+d.name, func(l netlink.Link) error {
			return d.links.LinkSetMTU(l, want.MTU)
		}))
	}
	var wanted []netip.Prefix
	for f, a := range want.Addresses.All() {
		wanted = append(wanted, netip.PrefixFrom(a, f.Bits()))
	}
	add, del := diff.Sets(have.addresses, wanted)
	for _, a := range add {
		changes = append(changes, d.linkChange("add", "address "+a.String()+" to "+d.name, func(l netlink.Link) error {
			return d.addAddress(l, a)
		}))
	}
	for _, a := range del {
		changes = append(changes, d.linkChange("delete", "address "+a.String()+" from "+d.name, func(l netlink.Link) error {
			n := ipNet(a)
			return d.links.AddrDel(l, &netlink.Addr{IPNet: &n})
		}))
	}
	return changes
}

// upChanges brings the interface up, which comes last: it appears whole.
func (d *Device) upChanges(have link, want Config) []diff.Change {
	if have.up {
		return nil
	}
	return []diff.Change{d.linkChange("set", d.name+" up", func(l netlink.Link) error {
		return portTaken(d.links.LinkSetUp(l), want.Port)
	})}
}

// linkChange returns a change that looks the interface up when it runs.
func (d *Device) linkChange(verb, object string, run func(netlink.Link) error) diff.Change {
	return diff.Change{Part: "link", Verb: verb, Object: object, Run: func(context.Context) error {
		l, err := d.links.LinkByName(d.name)
		if err == nil {
			err = run(l)
		}
		if err != nil {
			return fmt.Errorf("%s %s: %w", verb, object, err)
		}
		return nil
	}}
}

func (d *Device) addAddress(l netlink.Link, a netip.Prefix) error {
	n := ipNet(a)
	err := d.links.AddrAdd(l, &netlink.Addr{IPNet: &n, Flags: unix.IFA_F_NODAD})
	if errors.Is(err, unix.EACCES) && a.Addr().Is6() {
		return fmt.Errorf("%w: IPv6 is switched off for this interface: `sysctl -w net.ipv6.conf.%s.disable_ipv6=0`", err, d.name)
	}
	return err
}

func (d *Device) addKernelLink(context.Context) error {
	attrs := netlink.NewLinkAttrs()
	attrs.Name = d.name
	if err := d.links.LinkAdd(&netlink.Wireguard{LinkAttrs: attrs}); err != nil {
		return fmt.Errorf("add kernel WireGuard interface %s: %w", d.name, err)
	}
	return nil
}

// deleteLink deletes the interface; one that is gone already is fine.
func (d *Device) deleteLink() error {
	l, err := d.links.LinkByName(d.name)
	if err == nil {
		err = d.links.LinkDel(l)
	}
	if _, missing := errors.AsType[netlink.LinkNotFoundError](err); missing || errors.Is(err, unix.ENODEV) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("delete interface %s: %w", d.name, err)
	}
	return nil
}

// wgChanges compares key, port and peers.
func (d *Device) wgChanges(have live, key PrivateKey, want Config) []diff.Change {
	var changes []diff.Change
	if !have.key.Equal(key) || have.port != want.Port {
		changes = append(changes, diff.Change{
			Part: "link", Verb: "set", Object: fmt.Sprintf("key and port %d of %s", want.Port, d.name),
			Run: func(ctx context.Context) error { return d.setIdentity(ctx, have, key, want.Port) },
		})
	}
	spare, err := NewKey()
	edits := peerEdits(have.peers, want, time.Now(), spare.Public())
	if len(edits) == 0 {
		return changes
	}
	verb, object := describe(edits)
	return append(changes, diff.Change{Part: "peers", Verb: verb, Object: object, Run: func(ctx context.Context) error {
		if err != nil {
			return err
		}
		var c wgtypes.Config
		for _, e := range edits {
			c.Peers = append(c.Peers, peerConfig(e))
		}
		return d.wg.configure(ctx, d.name, c)
	}})
}

// setIdentity sets key and port, each only when it differs: wireguard-go opens its sockets
// anew for every port it is told, also for the one it has.
func (d *Device) setIdentity(ctx context.Context, have live, key PrivateKey, port uint16) error {
	var c wgtypes.Config
	if !have.key.Equal(key) {
		c.PrivateKey = new(key.bytes())
	}
	if have.port != port {
		c.ListenPort = new(int(port))
	}
	return portTaken(d.wg.configure(ctx, d.name, c), port)
}
