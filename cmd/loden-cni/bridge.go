package main

import (
	"fmt"
	"net"
	"net/netip"

	"github.com/containernetworking/cni/pkg/types"
	"golang.org/x/sys/unix"

	"github.com/loden-net/loden/config"
	"github.com/loden-net/loden/config/opt"
)

// checkBridge refuses to attach a container to a bridge that still has the gateway address of a
// subnet which the node no longer holds. The bridge plugin would refuse as well, but without
// the remedy; and its "forceAddress" would cut off the pods on the bridge.
func checkBridge(d delegation, env config.Env) error {
	if d.Plugin != "bridge" {
		return nil
	}
	if !d.Config.flag("isGateway") && !d.Config.flag("isDefaultGateway") {
		return nil // the bridge has no address
	}
	name, err := d.Config.word("bridge", "cni0")
	if err != nil {
		return types.NewError(types.ErrInvalidNetworkConfig, err.Error(), "")
	}
	link, ok := interfaceByName(name)
	if !ok {
		return nil // not made yet
	}
	held, err := link.Addrs()
	if err != nil {
		return fmt.Errorf("list addresses of %s: %w", name, err)
	}
	if old, ok := foreignAddress(env.Subnets, prefixes(held)).Get(); ok {
		return types.NewError(types.ErrInternal,
			fmt.Sprintf("bridge %s has %s, which is not in the subnet %s of this node: the bridge is from before the node's subnet changed",
				name, old, env.Subnets.Of(opt.FamilyOf(old.Addr()))),
			fmt.Sprintf("drain the node (or delete its pods), run 'ip link delete %s', and pods get addresses of the new subnet", name))
	}
	return nil
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
