package network

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"

	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"github.com/loden-net/loden/backend"
	"github.com/loden-net/loden/config"
	"github.com/loden-net/loden/config/opt"
	"github.com/loden-net/loden/config/set"
	"github.com/loden-net/loden/config/sorted"
	"github.com/loden-net/loden/network/firewall"
	"github.com/loden-net/loden/subnet"
)

// Inputs is all that a node's state is a function of.
type Inputs struct {
	Network config.Network
	Self    Self
	HostState
	Lease  opt.Option[subnet.Lease] // this node's own; without it the desired state is the zero State
	Leases subnet.Leases            // everybody's, this node's among them or not

	// Removals say how far these inputs may take something away from the device: leases from
	// disk may be older than the device.
	Removals backend.Removals
}

// Self is this node's identity and settings.
type Self struct {
	Name      string
	Key       wgtypes.Key // public
	Port      uint16      // UDP; 0 takes the network's
	Interface string
	Kernel    bool            // the kernel's WireGuard is used
	Policy    firewall.Policy // Plan fills in its Uplinks and Except
}

// State is the desired state of the kernel. The zero State holds no object of ours.
type State struct {
	Device   opt.Option[backend.Config]
	Routes   []Route
	Gateways opt.Dual[netip.Prefix] // addresses of the bridge of this node's pods
	Firewall firewall.Config
	Sysctls  []Sysctl
	Env      opt.Option[config.Env]
}

// Plan returns the desired state of this node's kernel, and the problems of the leases that it
// was given. It is pure and total. A lease with a problem is no peer; the other leases are not
// affected. The reconciler's planner computes the same at the cost of what changed.
func Plan(in Inputs) (State, []subnet.Problem) {
	own, ok := in.Lease.Get()
	if !ok {
		return State{}, nil
	}
	valid, peers, refused := judge(in, own, in.Leases.Slice())
	state, problems := planFor(in, own, peers)
	return state, slices.Concat(refused, problems, shadowProblems(in, own.Subnets, valid))
}

// judge returns the leases of other nodes that are valid, the peers that they make, and the
// problems of the other leases. Leases that share a subnet or a key must be judged together.
func judge(in Inputs, own subnet.Lease, leases []subnet.Lease) (valid []subnet.Lease, peers []backend.Peer, problems []subnet.Problem) {
	self := subnet.Identity{Node: in.Self.Name, Key: in.Self.Key, Subnets: own.Subnets}
	valid, problems = subnet.Validate(in.Network, self, leases)
	peers, apart := peersOf(in, valid)
	return valid, peers, append(problems, apart...)
}

// planFor returns the desired state for this node's lease and its peers.
func planFor(in Inputs, own subnet.Lease, peers []backend.Peer) (State, []subnet.Problem) {
	scopes, problems := possibleScopes(in, scopes(in.Network, own))
	if scopes.Len() == 0 {
		if len(problems) == 0 {
			problems = []subnet.Problem{{Object: in.Self.Name, Reason: "this node's lease has no subnet of a family that the network has switched on"}}
		}
		return State{}, problems
	}
	device := backend.Config{
		Port:         Port(in),
		MTU:          MTU(in),
		Addresses:    opt.Map(scopes, func(_ opt.Family, s firewall.Scope) netip.Addr { return s.Subnet.Addr() }),
		PresharedKey: in.Network.Backend.PresharedKey,
		Peers:        sorted.Of(peers...),
		Removals:     in.Removals,
	}
	return State{
		Device:   opt.Some(device),
		Routes:   overlayRoutes(scopes),
		Gateways: opt.Map(scopes, func(_ opt.Family, s firewall.Scope) netip.Prefix { return config.Gateway(s.Subnet) }),
		Firewall: rules(in, scopes),
		Sysctls:  settings(in, scopes),
		Env: opt.Some(config.Env{
			Networks: opt.Map(scopes, func(_ opt.Family, s firewall.Scope) netip.Prefix { return s.Network }),
			Subnets:  opt.Map(scopes, func(_ opt.Family, s firewall.Scope) netip.Prefix { return s.Subnet }),
			MTU:      device.MTU,
			Masq:     in.Self.Policy.Masq,
		}),
	}, problems
}

// Preflight returns the desired state of a node that has no lease yet, as far as
// it depends on the network and on this host: interface, port, MTU and rules. The first
// subnet of each family stands in for the subnets of the lease. The zero State, with the
// reason as a Problem, says that this network cannot work on this host.
func Preflight(in Inputs) (State, []subnet.Problem) {
	state, problems := planFor(in, subnet.Lease{
		Node: in.Self.Name, Key: in.Self.Key, Endpoints: Endpoints(in),
		Subnets: opt.Map(in.Network.Ranges, func(_ opt.Family, r config.Range) netip.Prefix {
			return netip.PrefixFrom(r.SubnetMin, r.SubnetLen)
		}),
	}, nil)
	return state, append(problems, shadowProblems(in, opt.Dual[netip.Prefix]{}, nil)...)
}

// scopes pairs each family's network with this node's part of it: the families that both
// the network and the lease have.
func scopes(n config.Network, own subnet.Lease) opt.Dual[firewall.Scope] {
	var out opt.Dual[firewall.Scope]
	for f, r := range n.Ranges.All() {
		if p, ok := own.Subnets.Of(f).Get(); ok {
			out = out.With(f, firewall.Scope{Network: r.Network, Subnet: p})
		}
	}
	return out
}

// Port returns the UDP port that this node listens on.
func Port(in Inputs) uint16 { return cmp.Or(in.Self.Port, in.Network.Backend.ListenPort) }

// MTU returns the tunnel's MTU in bytes: the smallest uplink's, or the network document's
// instead of it, less WireGuard's overhead with the longest outer header that may be used.
func MTU(in Inputs) int {
	families := usable(in.Network.Backend.Mode, in.Uplinks)
	link := 0
	var underlay []opt.Family
	for f, u := range families.All() {
		underlay = append(underlay, f)
		if link == 0 || u.MTU < link {
			link = u.MTU
		}
	}
	return backend.TunnelMTU(in.Network.Backend.MTU.Or(link), underlay)
}

// usable returns the uplinks that the network's mode lets carry the tunnel.
func usable(mode config.Mode, uplinks opt.Dual[Uplink]) opt.Dual[Uplink] {
	switch mode {
	case config.ModeIPv4:
		return uplinks.Without(opt.V6)
	case config.ModeIPv6:
		return uplinks.Without(opt.V4)
	}
	return uplinks
}

// Endpoints returns this node's published endpoints: its public address and port in each underlay
// family that the network's mode lets carry the tunnel.
func Endpoints(in Inputs) opt.Dual[netip.AddrPort] {
	return opt.Map(usable(in.Network.Backend.Mode, in.Uplinks), func(_ opt.Family, u Uplink) netip.AddrPort {
		return netip.AddrPortFrom(u.Public, Port(in))
	})
}

// peersOf turns the valid leases of other nodes into WireGuard peers.
func peersOf(in Inputs, leases []subnet.Lease) (out []backend.Peer, problems []subnet.Problem) {
	mine := usable(in.Network.Backend.Mode, in.Uplinks)
	for _, l := range leases {
		endpoint, ok := commonEndpoint(mine, l.Endpoints)
		if !ok {
			problems = append(problems, subnet.Problem{Object: subnet.FormatKey(l.Subnets),
				Reason: fmt.Sprintf("node %q and this one have no underlay family in common", l.Node)})
			continue
		}
		out = append(out, backend.Peer{
			Key: l.Key, Endpoint: endpoint, Subnets: l.Subnets, Keepalive: in.Network.Backend.Keepalive,
		})
	}
	return out, problems
}

// commonEndpoint returns where to reach a peer: by IPv4 where both ends have it, else IPv6.
func commonEndpoint(mine opt.Dual[Uplink], theirs opt.Dual[netip.AddrPort]) (netip.AddrPort, bool) {
	for f := range mine.All() {
		if e, ok := theirs.Of(f).Get(); ok {
			return e, true
		}
	}
	return netip.AddrPort{}, false
}

// rules applies the operator's policy to the scopes and to the uplinks of the moment.
func rules(in Inputs, scopes opt.Dual[firewall.Scope]) firewall.Config {
	policy := in.Self.Policy
	policy.Uplinks, policy.Except = set.NewNames(slices.Concat(slices.Collect(in.Exits.All()), slices.Collect(in.Outward.All()))...), in.Underlay
	c := policy.Config(in.Self.Interface, scopes)
	c.Listen = opt.Map(in.Uplinks, func(_ opt.Family, u Uplink) firewall.Listening {
		return firewall.Listening{Uplink: u.Name, Address: u.Address, Port: Port(in)}
	})
	return c
}

// overlayRoutes returns two routes for each family's whole network: through the tunnel,
// where AllowedIPs choose the peer, and unreachable below it for when the tunnel is gone.
func overlayRoutes(scopes opt.Dual[firewall.Scope]) []Route {
	var out []Route
	for _, s := range scopes.All() {
		out = append(out, Route{Dst: s.Network}, Route{Dst: s.Network, Tunnel: true})
	}
	return out
}

// settings returns the kernel settings without which no pod packet is routed. Turning IPv6
// forwarding on makes the kernel ignore router advertisements, and with them lose the
// default route of an uplink that learned it so, unless accept_ra is 2
// (Documentation/networking/ip-sysctl.rst). The kernel's WireGuard turns ICMP redirects off
// when its interface comes up (drivers/net/wireguard/device.c, wg_open): asked for here as
// well, so that `down` knows the value from before.
func settings(in Inputs, scopes opt.Dual[firewall.Scope]) []Sysctl {
	var out []Sysctl
	if scopes.V4.Present() {
		out = append(out, Sysctl{"net/ipv4/ip_forward", "1"})
	}
	if in.Self.Kernel {
		out = append(out, Sysctl{"net/ipv4/conf/all/send_redirects", "0"})
	}
	if scopes.V6.Present() {
		for name := range in.AcceptRA.All() {
			out = append(out, Sysctl{"net/ipv6/conf/" + name + "/accept_ra", "2"})
		}
		out = append(out, Sysctl{ipv6Forwarding, "1"})
	}
	return out
}
