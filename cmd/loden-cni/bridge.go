package main

import (
	"encoding/json"
	"fmt"
	"net"
	"net/netip"

	"github.com/containernetworking/cni/pkg/types"
	"golang.org/x/sys/unix"

	"github.com/loden-net/loden/config"
	"github.com/loden-net/loden/config/opt"
)

// checkBridge refuses to attach a container to a bridge from another life of the node: one
// that still has the gateway address of a subnet which the node no longer holds. The
// bridge plugin would refuse as well, but not say what to do; and its "forceAddress" would
// cut off the pods that are there.
func checkBridge(d delegation, env config.Env) error {
	if d.Plugin != "bridge" {
		return nil
	}
	var made object
	if err := json.Unmarshal(d.Config, &made); err != nil {
		return fmt.Errorf("read delegate's configuration: %w", err)
	}
	if !made.flag("isGateway") && !made.flag("isDefaultGateway") {
		return nil // the bridge has no address
	}
	name, err := made.word("bridge", "cni0")
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
	if old, ok := stranger(env.Subnets, prefixes(held)).Get(); ok {
		return types.NewError(types.ErrInternal,
			fmt.Sprintf("bridge %s has %s, which is not in the subnet %s of this node: the bridge is from before the node's subnet changed",
				name, old, env.Subnets.Of(opt.FamilyOf(old.Addr()))),
			fmt.Sprintf("drain the node (or delete its pods), run 'ip link delete %s', and pods get addresses of the new subnet", name))
	}
	return nil
}

// interfaceByName finds an interface by asking for it, where package net lists all: two
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

// stranger returns an address that shows the bridge to be another subnet's: a global one
// in a family of which the bridge has no address in the node's subnet. An address that an
// operator added beside the gateway's is none.
func stranger(subnets opt.Dual[netip.Prefix], held []netip.Prefix) opt.Option[netip.Prefix] {
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

// prefixes converts what the standard library lists.
func prefixes(addrs []net.Addr) []netip.Prefix {
	var all []netip.Prefix
	for _, a := range addrs {
		if p, err := netip.ParsePrefix(a.String()); err == nil {
			all = append(all, p)
		}
	}
	return all
}
