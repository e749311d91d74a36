package main

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"

	"github.com/containernetworking/cni/pkg/types"
	"golang.org/x/sys/unix"

	"github.com/loden-net/loden/config"
	"github.com/loden-net/loden/config/opt"
)

// checkBridge refuses to attach a container to a bridge that still has the gateway address of a
// subnet which the node no longer holds. The bridge plugin would refuse as well, but without
// the remedy; and its "forceAddress" would cut off the pods on the bridge.
func checkBridge(d delegation, env config.Env) error {
	found, err := findBridge(d)
	bridge, ok := found.Get()
	if err != nil || !ok {
		return err
	}
	name, held := bridge.name, bridge.addrs
	if old, ok := foreignAddress(env.Subnets, held).Get(); ok {
		return types.NewError(types.ErrInternal,
			fmt.Sprintf("bridge %s has %s, which is not in the subnet %s of this node: the bridge is from before the node's subnet changed",
				name, old, env.Subnets.Of(opt.FamilyOf(old.Addr()))),
			fmt.Sprintf("drain the node (or delete its pods), run 'ip link delete %s', and pods get addresses of the new subnet", name))
	}
	return nil
}

// gatewayBridge is an existing bridge that holds the gateway addresses of its pods.
type gatewayBridge struct {
	name  string
	addrs []netip.Prefix
}

// bridgeName returns the name of the bridge on which the delegate sets gateway addresses; none
// for another delegate, and for a bridge without addresses.
func bridgeName(d delegation) (opt.Option[string], error) {
	if d.Plugin != "bridge" || !d.Config.flag("isGateway") && !d.Config.flag("isDefaultGateway") {
		return opt.None[string](), nil
	}
	name, err := d.Config.word("bridge", "cni0")
	if err != nil {
		return opt.None[string](), types.NewError(types.ErrInvalidNetworkConfig, err.Error(), "")
	}
	return opt.Some(name), nil
}

// findBridge returns the delegate's bridge with its addresses; none when there is no bridge yet.
func findBridge(d delegation) (opt.Option[gatewayBridge], error) {
	none := opt.None[gatewayBridge]()
	wanted, err := bridgeName(d)
	name, ok := wanted.Get()
	if err != nil || !ok {
		return none, err
	}
	link, ok := interfaceByName(name)
	if !ok {
		return none, nil
	}
	addrs, err := link.Addrs()
	if err != nil {
		return none, fmt.Errorf("list addresses of %s: %w", name, err)
	}
	return opt.Some(gatewayBridge{name: name, addrs: prefixes(addrs)}), nil
}

// checkGateway returns an error when the bridge has no address in the node's subnet of a family:
// the pods on it then have no gateway in that family. The bridge plugin's CHECK does not look.
func checkGateway(d delegation, env config.Env) error {
	found, err := findBridge(d)
	bridge, ok := found.Get()
	if err != nil || !ok {
		return err
	}
	for f, subnet := range env.Subnets.All() {
		if !slices.ContainsFunc(bridge.addrs, func(p netip.Prefix) bool { return subnet.Contains(p.Addr()) }) {
			gateway := netip.PrefixFrom(subnet.Addr().Next(), subnet.Bits())
			return types.NewError(types.ErrLimitedConnectivity,
				fmt.Sprintf("bridge %s has no address in the node's %s subnet %s, so its pods have no %s gateway", bridge.name, f, subnet, f),
				fmt.Sprintf("run 'ip address add %s dev %s'; for IPv6, sysctl net.ipv6.conf.%s.disable_ipv6 must be 0", gateway, bridge.name, bridge.name))
		}
	}
	return nil
}

// prepareBridge makes the delegate's bridge, when there is none, and switches duplicate address
// detection off on it. The gateway address is this node's alone, as the subnet is; detection
// would keep the address from answering for the first two seconds of the node's first pod
// (RFC 4862 section 5.4; the bridge plugin makes the bridge and sets the address in one go).
// Both steps may fail: then the bridge plugin makes the bridge, and the first pod waits.
func prepareBridge(d delegation, env config.Env) error {
	wanted, err := bridgeName(d)
	name, ok := wanted.Get()
	if err != nil || !ok || !env.Subnets.V6.Present() || !isInterface(name) {
		return err
	}
	_, vlan := d.Config["vlan"]
	_, trunk := d.Config["vlanTrunk"]
	if vlan || trunk {
		return nil // the plugin makes another kind of bridge then
	}
	makeBridge(name)
	_ = os.WriteFile("/proc/sys/net/ipv6/conf/"+name+"/accept_dad", []byte("0"), 0)
	return nil
}

// makeBridge makes a bridge, unless the name is taken. It uses the ioctl of brctl(8), because
// linking a netlink library costs every ADD a millisecond.
func makeBridge(name string) {
	s, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return
	}
	defer unix.Close(s)
	if ifr, err := unix.NewIfreq(name); err == nil { // the kernel reads the name from the start of the request
		_ = unix.IoctlIfreq(s, unix.SIOCBRADDBR, ifr)
	}
}

// interfaceByName asks the kernel for a single interface. Package net lists all interfaces, two
// kilobytes for each pod on the node.
func interfaceByName(name string) (net.Interface, bool) {
	ask, err := unix.NewIfreq(name)
	if err != nil {
		return net.Interface{}, false
	}
	s, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return net.Interface{}, false
	}
	defer unix.Close(s)
	if err := unix.IoctlIfreq(s, unix.SIOCGIFINDEX, ask); err != nil {
		return net.Interface{}, false
	}
	return net.Interface{Name: name, Index: int(ask.Uint32())}, true
}

// foreignAddress returns an address that shows that the bridge belongs to another subnet: a
// global address of a family in which the bridge has no address of the node's subnet. An
// address that an operator added beside the gateway's address does not count.
func foreignAddress(subnets opt.Dual[netip.Prefix], held []netip.Prefix) opt.Option[netip.Prefix] {
	for f, subnet := range subnets.All() {
		var other opt.Option[netip.Prefix]
		ours := false
		for _, p := range held {
			switch {
			case opt.FamilyOf(p.Addr()) != f || p.Addr().IsLinkLocalUnicast():
			case subnet.Contains(p.Addr()):
				ours = true
			case !other.Present():
				other = opt.Some(p)
			}
		}
		if other.Present() && !ours {
			return other
		}
	}
	return opt.None[netip.Prefix]()
}

// prefixes converts addresses from the standard library's form.
func prefixes(addrs []net.Addr) []netip.Prefix {
	var all []netip.Prefix
	for _, a := range addrs {
		if p, err := netip.ParsePrefix(a.String()); err == nil {
			all = append(all, p)
		}
	}
	return all
}
