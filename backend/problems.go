package backend

import (
	"fmt"
	"net/netip"

	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"github.com/loden-net/loden/config/opt"
)

// Problem is a fault of the configuration that a Device cannot mend: the object that has it,
// and the reason with its remedy, in a line.
type Problem struct {
	Object string `json:"object"`
	Reason string `json:"reason"`
}

// narrow returns the problem of a tunnel that is too narrow for its IPv6 address.
func narrow(name string, want Config) []Problem {
	if want.MTU >= MinIPv6MTU || !want.Addresses.Of(opt.V6).Present() {
		return nil
	}
	return []Problem{{Object: name, Reason: fmt.Sprintf("its MTU is %d bytes and IPv6 needs %d, so the overlay's IPv6 does not work on this node (IPv4 does): "+
		"raise the MTU of the uplink to %d, or switch the network's IPv6 off", want.MTU, MinIPv6MTU, MinIPv6MTU+Overhead(opt.V6))}}
}

// loops returns the problems of peers whose endpoint is routed into the tunnel: their encrypted
// packets would be encrypted again, without end. intoTunnel asks the kernel for the route to an
// address; it is asked for endpoints inside allowed IPs only, which are hardly any.
func loops(peers Peers, intoTunnel func(netip.Addr) bool) []Problem {
	inner := map[netip.Prefix]bool{}
	lengths := map[int]bool{} // of prefixes, either family
	for p := range peers.All() {
		for _, prefix := range p.Subnets.All() {
			inner[prefix.Masked()] = true
			lengths[prefix.Bits()] = true
		}
	}
	inside := func(a netip.Addr) bool {
		for bits := range lengths {
			if prefix, err := a.Prefix(bits); err == nil && inner[prefix] {
				return true
			}
		}
		return false
	}
	var out []Problem
	for p := range peers.All() {
		if at := p.Endpoint.Addr(); at.IsValid() && inside(at) && intoTunnel(at) {
			out = append(out, loop(p.Key, p.Endpoint))
		}
	}
	return out
}

func loop(key wgtypes.Key, at netip.AddrPort) Problem {
	return Problem{Object: "peer " + key.String(), Reason: fmt.Sprintf("its endpoint %s is routed into the tunnel itself, so no packet can reach it: "+
		"add a route to %s by an uplink, or publish another address of that node with --public-ip", at, at.Addr())}
}
