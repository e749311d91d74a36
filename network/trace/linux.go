package trace

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/loden-net/loden/config/opt"
)

// Linux is the kernel of the calling thread's network namespace. The zero value is ready.
type Linux struct{}

// Lookup asks the kernel as ip-route(8) does for `ip route get DST from SRC iif IN`. An error
// says that the kernel gave no answer about routes at all.
func (Linux) Lookup(q Query) (Route, error) {
	o := &netlink.RouteGetOptions{FIBMatch: true, Iif: q.In}
	if q.Src.IsValid() {
		o.SrcAddr = q.Src.AsSlice()
	}
	found, err := netlink.RouteGetWithOptions(q.Dst.AsSlice(), o)
	if refusal(err) {
		return Route{Refused: err}, nil
	}
	if err != nil {
		return Route{}, fmt.Errorf("look up the route to %s: %w", q.Dst, err)
	}
	if len(found) == 0 {
		return Route{Refused: unix.ENETUNREACH}, nil
	}
	return routeOf(found[0], opt.FamilyOf(q.Dst)), nil
}

// refusal reports whether the kernel's error is a verdict about the packet.
func refusal(err error) bool {
	for _, e := range []error{unix.ENETUNREACH, unix.EHOSTUNREACH, unix.EXDEV, unix.EACCES, unix.EINVAL} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// routeOf converts the kernel's answer. A default route has no destination there.
func routeOf(n netlink.Route, f opt.Family) Route {
	r := Route{Kind: kindName(n.Type), Table: n.Table, Dst: netip.PrefixFrom(netip.IPv4Unspecified(), 0)}
	if f == opt.V6 {
		r.Dst = netip.PrefixFrom(netip.IPv6Unspecified(), 0)
	}
	if n.Dst != nil {
		r.Dst = prefixOf(n.Dst)
	}
	if via, ok := netip.AddrFromSlice(n.Gw); ok {
		r.Via = via.Unmap()
	}
	if l, err := netlink.LinkByIndex(n.LinkIndex); err == nil {
		r.Link = l.Attrs().Name
	}
	return r
}

// kindName names a route's type as ip-route(8) does.
func kindName(kind int) string {
	names := map[int]string{
		unix.RTN_UNICAST: "unicast", unix.RTN_LOCAL: "local", unix.RTN_BROADCAST: "broadcast", unix.RTN_UNREACHABLE: "unreachable",
		unix.RTN_BLACKHOLE: "blackhole", unix.RTN_PROHIBIT: "prohibit", unix.RTN_THROW: "throw", unix.RTN_ANYCAST: "anycast",
	}
	return cmp.Or(names[kind], fmt.Sprintf("type %d", kind))
}

func prefixOf(n *net.IPNet) netip.Prefix {
	a, ok := netip.AddrFromSlice(n.IP)
	if !ok {
		return netip.Prefix{}
	}
	bits, _ := n.Mask.Size()
	return netip.PrefixFrom(a.Unmap(), bits)
}

// Rules lists the rules of a family.
func (Linux) Rules(f opt.Family) ([]Rule, error) {
	found, err := netlink.RuleList(netlinkFamily(f))
	if err != nil {
		return nil, fmt.Errorf("list %s routing rules: %w", f, err)
	}
	out := make([]Rule, 0, len(found))
	for _, r := range found {
		out = append(out, Rule{Priority: max(r.Priority, 0), Table: r.Table, Text: selector(r)})
	}
	slices.SortStableFunc(out, func(a, b Rule) int { return cmp.Compare(a.Priority, b.Priority) })
	return out, nil
}

// selector writes the selector of a rule as ip-rule(8) does.
func selector(r netlink.Rule) string {
	parts := []string{"from all"}
	if r.Src != nil {
		parts[0] = "from " + r.Src.String()
	}
	if r.Dst != nil {
		parts = append(parts, "to "+r.Dst.String())
	}
	if r.Invert {
		parts[0] = "not " + parts[0]
	}
	if r.Mark != 0 {
		parts = append(parts, fmt.Sprintf("fwmark %#x", r.Mark))
	}
	if r.IifName != "" {
		parts = append(parts, "iif "+r.IifName)
	}
	return strings.Join(parts, " ")
}

func netlinkFamily(f opt.Family) int {
	if f == opt.V6 {
		return unix.AF_INET6
	}
	return unix.AF_INET
}

// Links lists all interfaces with their addresses.
func (Linux) Links() ([]Link, error) {
	found, err := netlink.LinkList()
	if err != nil && !errors.Is(err, netlink.ErrDumpInterrupted) {
		return nil, fmt.Errorf("list interfaces: %w", err)
	}
	names := map[int]string{}
	for _, l := range found {
		names[l.Attrs().Index] = l.Attrs().Name
	}
	addresses, err := netlink.AddrList(nil, netlink.FAMILY_ALL)
	if err != nil && !errors.Is(err, netlink.ErrDumpInterrupted) {
		return nil, fmt.Errorf("list addresses: %w", err)
	}
	byLink := map[int][]netip.Prefix{}
	for _, a := range addresses {
		byLink[a.LinkIndex] = append(byLink[a.LinkIndex], prefixOf(a.IPNet))
	}
	out := make([]Link, 0, len(found))
	for _, l := range found {
		a := l.Attrs()
		out = append(out, Link{Name: a.Name, Kind: l.Type(), Up: a.Flags&net.FlagUp != 0, MTU: a.MTU, Master: names[a.MasterIndex], Addresses: byLink[a.Index]})
	}
	return out, nil
}

// Neighbour looks an address up in the neighbour table, and its hardware address in the
// forwarding table of the bridge.
func (Linux) Neighbour(link string, a netip.Addr) (Neighbour, error) {
	l, err := netlink.LinkByName(link)
	if err != nil {
		return Neighbour{}, fmt.Errorf("find interface %s: %w", link, err)
	}
	list, err := netlink.NeighList(l.Attrs().Index, netlinkFamily(opt.FamilyOf(a)))
	if err != nil && !errors.Is(err, netlink.ErrDumpInterrupted) {
		return Neighbour{}, fmt.Errorf("list neighbours on %s: %w", link, err)
	}
	for _, n := range list {
		if at, ok := netip.AddrFromSlice(n.IP); ok && at.Unmap() == a {
			return Neighbour{Present: true, Failed: n.State&netlink.NUD_FAILED != 0, Port: portOf(l.Attrs().Index, n.HardwareAddr)}, nil
		}
	}
	return Neighbour{}, nil
}

// portOf returns the bridge port behind which a hardware address was seen, or "".
func portOf(bridge int, mac net.HardwareAddr) string {
	list, err := netlink.NeighList(0, unix.AF_BRIDGE)
	if err != nil || len(mac) == 0 {
		return ""
	}
	for _, n := range list {
		if n.MasterIndex == bridge && n.LinkIndex != bridge && n.HardwareAddr.String() == mac.String() {
			if l, err := netlink.LinkByIndex(n.LinkIndex); err == nil {
				return l.Attrs().Name
			}
		}
	}
	return ""
}

// Sysctl reads a kernel setting.
func (Linux) Sysctl(path string) (string, error) {
	text, err := os.ReadFile(filepath.Join("/proc/sys", path))
	return strings.TrimSpace(string(text)), err
}
