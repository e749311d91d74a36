package network

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"slices"
	"strconv"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/loden-net/loden/backend/dump"
	"github.com/loden-net/loden/config/opt"
)

// readInventory lists links, addresses and the routes of each family: a dump for each kind of
// object, however many interfaces there are. The messages are read by hand because the library's
// lists parse every attribute of every object, and a host has hundreds of pod links and may
// have 50,000 routes; of a route the fixed header alone tells whether it matters.
func readInventory(tunnel string, reach opt.Option[netip.Addr], o overlay) (Inventory, error) {
	conn, err := dialKernel()
	if err != nil {
		return Inventory{}, err
	}
	defer conn.close()
	return conn.inventory(tunnel, reach, o)
}

func (c *kernelConn) inventory(tunnel string, reach opt.Option[netip.Addr], o overlay) (Inventory, error) {
	links, err := c.links()
	if err != nil {
		return Inventory{}, err
	}
	addresses, err := c.addresses()
	if err != nil {
		return Inventory{}, err
	}
	var v Inventory
	names := make(map[int]string, len(links))
	for _, l := range links {
		names[l.index] = l.name
		if l.name == tunnel {
			v.tunnel = l.index
		}
	}
	for _, l := range links {
		switch {
		case l.flags&unix.IFF_LOOPBACK != 0:
			v.Loopback = slices.DeleteFunc(addresses[l.index], func(a LinkAddress) bool { return !a.Addr.IsGlobalUnicast() })
		case l.name != tunnel:
			v.Links = append(v.Links, Link{Name: l.name, MTU: l.mtu, Kind: l.kind, Up: l.flags&unix.IFF_UP != 0,
				Bridge: names[l.master], Addresses: addresses[l.index]})
		}
	}
	for _, f := range opt.Families() {
		routes, err := c.routes(f, func(r routeHeader) bool {
			network, ok := o.networks.Of(f).Get()
			return r.protocol == protocol || r.bits == 0 && r.kind == unix.RTN_UNICAST || ok && r.bits >= network.Bits()
		})
		if err != nil {
			return Inventory{}, err
		}
		for _, r := range routes {
			v.addRoute(r, names, tunnel, o)
		}
	}
	v.readAcceptRA()
	if _, err := os.Stat("/proc/sys/net/ipv6"); errors.Is(err, fs.ErrNotExist) {
		v.NoIPv6 = true
	}
	if a, ok := reach.Get(); ok {
		v.Reach = lookUpReach(a, names)
	}
	return v, nil
}

// addRoute files a route under its kind: a route of ours, or a default route of the host.
func (v *Inventory) addRoute(r kernelRoute, names map[int]string, tunnel string, o overlay) {
	switch {
	case r.protocol == protocol:
		v.own = append(v.own, r)
	case r.bits > 0:
		if !o.shadowed(r.dst) || len(r.links) > 0 && names[r.links[0]] == tunnel {
			return
		}
		s := Shadow{Dst: r.dst}
		if len(r.links) > 0 && r.kind == unix.RTN_UNICAST {
			s.Link = names[r.links[0]]
		}
		v.Inside = append(v.Inside, s)
	default:
		for _, link := range r.links {
			if name, ok := names[link]; ok && name != tunnel {
				v.Routes = append(v.Routes, DefaultRoute{Family: r.family, Link: name, Metric: int(r.metric),
					RA: r.protocol == unix.RTPROT_RA, Source: valid(r.source), Gateway: valid(r.gateway)})
			}
		}
	}
}

// valid returns None for the zero Addr.
func valid(a netip.Addr) opt.Option[netip.Addr] {
	if !a.IsValid() {
		return opt.None[netip.Addr]()
	}
	return opt.Some(a)
}

// readAcceptRA reads accept_ra of the links whose default route or address the kernel made
// from a router advertisement. A setting that cannot be read counts as 0: the kernel ignores
// advertisements.
func (v *Inventory) readAcceptRA() {
	for i, l := range v.Links {
		learned := slices.ContainsFunc(l.Addresses, func(a LinkAddress) bool { return a.RA }) ||
			slices.ContainsFunc(v.Routes, func(r DefaultRoute) bool { return r.RA && r.Link == l.Name })
		if !learned {
			continue
		}
		if text, err := readSysctl("net/ipv6/conf/" + l.Name + "/accept_ra"); err == nil {
			v.Links[i].AcceptRA, _ = strconv.Atoi(text)
		}
	}
}

// lookUpReach asks the kernel how it would reach an address. The result is None for an
// address that the kernel cannot reach.
func lookUpReach(a netip.Addr, names map[int]string) opt.Option[Reach] {
	routes, err := netlink.RouteGet(a.AsSlice())
	if err != nil || len(routes) == 0 {
		return opt.None[Reach]()
	}
	source, ok := netip.AddrFromSlice(routes[0].Src)
	if !ok {
		return opt.None[Reach]()
	}
	return opt.Some(Reach{Link: names[routes[0].LinkIndex], Source: source.Unmap()})
}

// kernelConn is a netlink socket for lists.
type kernelConn struct {
	socket *nl.SocketHandle
	dumps  int // requests for a list
}

// dialKernel opens a socket in the network namespace of the calling thread. With strict
// checking (Linux 4.20) the kernel itself filters routes by table; an older kernel sends
// all tables, and the filter here drops the foreign tables.
func dialKernel() (*kernelConn, error) {
	s, err := nl.Subscribe(unix.NETLINK_ROUTE) // no multicast group
	if err != nil {
		return nil, fmt.Errorf("open netlink socket: %w", err)
	}
	_ = unix.SetsockoptInt(s.GetFd(), unix.SOL_NETLINK, unix.NETLINK_GET_STRICT_CHK, 1)
	return &kernelConn{socket: &nl.SocketHandle{Socket: s}}, nil
}

func (c *kernelConn) close() { c.socket.Close() }

// dump sends a dump request and calls each with the body of every answer; reset comes
// before a repetition. An interrupted dump is used at last: an event follows the change that
// interrupted it, and starts another pass.
func (c *kernelConn) dump(request int, header nl.NetlinkRequestData, reset func(), each func(body []byte)) error {
	_, err := dump.Whole(func() ([]struct{}, error) {
		c.dumps++
		reset()
		r := nl.NewNetlinkRequest(request, unix.NLM_F_DUMP)
		r.AddData(header)
		r.Sockets = map[int]*nl.SocketHandle{unix.NETLINK_ROUTE: c.socket}
		return nil, r.ExecuteIter(unix.NETLINK_ROUTE, uint16(request-2), func(body []byte) bool { // RTM_NEW… is two below RTM_GET…
			each(body)
			return true
		})
	})
	if errors.Is(err, netlink.ErrDumpInterrupted) {
		return nil
	}
	return err
}

// kernelLink is a link as the kernel lists it.
type kernelLink struct {
	index  int
	name   string
	mtu    int    // bytes
	flags  uint32 // IFF_…
	kind   string // the kernel's name of a virtual link's kind; "" for a physical link
	master int    // interface index of the bridge or bond that the link is a port of
}

// forPods reports whether links of this kind are made for pods, containers and virtual
// machines, a link for each. Without an address such links lead to the pod alone.
func (l kernelLink) forPods() bool {
	switch l.kind {
	case "veth", "macvlan", "macvtap", "ipvlan", "ipvtap", "tap", "netkit", "ifb", "dummy":
		return true
	}
	return false
}

func (c *kernelConn) links() ([]kernelLink, error) {
	var out []kernelLink
	request := &linkRequest{}
	err := c.dump(unix.RTM_GETLINK, request, func() { out = nil }, func(body []byte) {
		if l, ok := parseLink(body); ok {
			out = append(out, l)
		}
	})
	if err != nil {
		return nil, fmt.Errorf("list links: %w", err)
	}
	return out, nil
}

// skipStatistics is RTEXT_FILTER_SKIP_STATS of linux/rtnetlink.h.
const skipStatistics = 1 << 3

// linkRequest asks for links without their statistics, which are most of a link's message.
type linkRequest struct{}

func (linkRequest) Len() int { return unix.SizeofIfInfomsg + unix.SizeofRtAttr + 4 }

func (r linkRequest) Serialize() []byte {
	return append(make([]byte, unix.SizeofIfInfomsg), nl.NewRtAttr(unix.IFLA_EXT_MASK, nl.Uint32Attr(skipStatistics)).Serialize()...)
}

// parseLink reads the body of an RTM_NEWLINK or RTM_DELLINK message. It is false for a
// malformed body.
func parseLink(body []byte) (kernelLink, bool) {
	if len(body) < unix.SizeofIfInfomsg {
		return kernelLink{}, false
	}
	l := kernelLink{index: int(int32(binary.NativeEndian.Uint32(body[4:]))), flags: binary.NativeEndian.Uint32(body[8:])}
	for kind, value := range attributes(body[unix.SizeofIfInfomsg:]) {
		switch kind {
		case unix.IFLA_IFNAME:
			l.name = unix.ByteSliceToString(value)
		case unix.IFLA_MTU:
			l.mtu = int(uint32Value(value))
		case unix.IFLA_MASTER:
			l.master = int(uint32Value(value))
		case unix.IFLA_LINKINFO:
			for kind, value := range attributes(value) {
				if kind == unix.IFLA_INFO_KIND {
					l.kind = unix.ByteSliceToString(value)
				}
			}
		}
	}
	if l.kind == "tun" && binary.NativeEndian.Uint16(body[2:]) == unix.ARPHRD_ETHER {
		l.kind = "tap" // of a virtual machine; without Ethernet it is the tunnel of a VPN
	}
	return l, l.name != ""
}

// addresses lists the addresses of all links, by interface index. An address that failed
// duplicate address detection is not listed: the kernel does not use it.
func (c *kernelConn) addresses() (map[int][]LinkAddress, error) {
	out := map[int][]LinkAddress{}
	return out, c.dumpAddresses(func() { clear(out) }, func(a kernelAddress) {
		if a.flags&unix.IFA_F_DADFAILED == 0 {
			out[a.link] = append(out[a.link], a.LinkAddress)
		}
	})
}

// dumpAddresses calls each with every address of the host.
func (c *kernelConn) dumpAddresses(reset func(), each func(kernelAddress)) error {
	err := c.dump(unix.RTM_GETADDR, nl.NewIfAddrmsg(unix.AF_UNSPEC), reset, func(body []byte) {
		if a, ok := parseAddress(body); ok {
			each(a)
		}
	})
	if err != nil {
		return fmt.Errorf("list addresses: %w", err)
	}
	return nil
}

// kernelAddress is an address as the kernel lists it.
type kernelAddress struct {
	LinkAddress
	link  int // interface index
	scope uint8
	flags uint32
}

// From linux/if_addr.h, since Linux 5.18: who made an address.
const (
	addressProtocol  = 11 // IFA_PROTO
	protocolKernelRA = 2  // IFAPROT_KERNEL_RA
)

// parseAddress reads the body of an RTM_NEWADDR or RTM_DELADDR message. It is false for a
// body without a usable address.
func parseAddress(body []byte) (kernelAddress, bool) {
	if len(body) < unix.SizeofIfAddrmsg {
		return kernelAddress{}, false
	}
	a := kernelAddress{link: int(binary.NativeEndian.Uint32(body[4:])), scope: body[3], flags: uint32(body[2])}
	var local, address netip.Addr
	for kind, value := range attributes(body[unix.SizeofIfAddrmsg:]) {
		switch kind {
		case unix.IFA_LOCAL: // on a point-to-point link IFA_ADDRESS is the other end
			local, _ = netip.AddrFromSlice(value)
		case unix.IFA_ADDRESS:
			address, _ = netip.AddrFromSlice(value)
		case unix.IFA_FLAGS:
			a.flags = uint32Value(value)
		case addressProtocol:
			a.RA = len(value) == 1 && value[0] == protocolKernelRA
		}
	}
	a.Addr, a.Bits = address, int(body[1])
	if local.IsValid() {
		a.Addr = local
	}
	a.Permanent = a.flags&unix.IFA_F_PERMANENT != 0
	a.Temporary = a.Addr.Is6() && a.flags&unix.IFA_F_SECONDARY != 0 // IFA_F_TEMPORARY is the same bit
	a.Deprecated = a.flags&unix.IFA_F_DEPRECATED != 0
	return a, a.Addr.IsValid()
}

// attributes yields type and value of each netlink attribute, up to the first malformed
// attribute.
func attributes(data []byte) func(func(uint16, []byte) bool) {
	return func(yield func(uint16, []byte) bool) {
		for len(data) >= unix.SizeofRtAttr {
			size := int(binary.NativeEndian.Uint16(data))
			kind := binary.NativeEndian.Uint16(data[2:]) &^ (unix.NLA_F_NESTED | unix.NLA_F_NET_BYTEORDER)
			if size < unix.SizeofRtAttr || size > len(data) || !yield(kind, data[unix.SizeofRtAttr:size]) {
				return
			}
			data = data[min((size+3)&^3, len(data)):]
		}
	}
}

// uint32Value reads a number; a value that is too short reads as 0.
func uint32Value(value []byte) uint32 {
	if len(value) < 4 {
		return 0
	}
	return binary.NativeEndian.Uint32(value)
}
