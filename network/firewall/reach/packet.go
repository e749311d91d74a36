package reach

import (
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/loden-net/loden/config/opt"
	"github.com/loden-net/loden/config/prefix"
	"github.com/loden-net/loden/config/set"
	"github.com/loden-net/loden/network/firewall/rule"
)

// Traffic describes the packets of a family that have to pass. It is comparable with ==; the zero value
// has no packets.
type Traffic struct {
	Pods       opt.Option[Pods]
	Handshakes opt.Option[Listening]
}

// Pods describes the packets of pods that the node forwards.
type Pods struct {
	Scope   rule.Scope
	Tunnel  string    // the interface of the tunnel
	Uplinks set.Names // interfaces that are no pod's
}

// Listening is the socket at which peers reach this node.
type Listening struct {
	Uplink  string     // the interface at which the packets of peers arrive
	Address netip.Addr // the local address that they are sent to
	Port    uint16     // UDP
}

// Kind says which packets a finding is about.
type Kind int

// The kinds.
const (
	Forwarded Kind = iota // packets of pods, which the node forwards
	Received              // handshakes of peers
	Sent                  // handshakes of this node
)

// link is an interface of a packet. The zero link is unknown: the kernel does not know it at every hook.
type link struct {
	name string
	pod  bool // the interface of a pod, whose name is unknown
}

// packet is the first packet of a connection.
type packet struct {
	kind     Kind
	about    string
	hooks    []uint32 // NF_INET_*, on the packet's way
	family   opt.Family
	protocol byte
	in, out  link
	src, dst netip.Addr // the zero Addr is unknown

	sourcePort, port uint16 // 0 is unknown
}

// packets returns the packets that are followed: the first packets of connections from a pod of this
// node into the tunnel and out of the tunnel to a pod, of a handshake that arrives, and of a handshake
// that leaves.
func (t Traffic) packets() []packet {
	var out []packet
	if p, ok := t.Pods.Get(); ok {
		own := p.Scope.Subnet.Addr().Next().Next()
		other := p.Scope.Network.Addr().Next().Next()
		if p.Scope.Subnet.Contains(other) {
			other = prefix.Last(p.Scope.Network)
		}
		way := []uint32{unix.NF_INET_PRE_ROUTING, unix.NF_INET_FORWARD, unix.NF_INET_POST_ROUTING}
		forwarded := packet{hooks: way, family: p.Scope.Family(), protocol: unix.IPPROTO_TCP}
		to, from := forwarded, forwarded
		to.about, to.in, to.out, to.src, to.dst = "new connection from pods of this node to pods of other nodes", link{pod: true}, link{name: p.Tunnel}, own, other
		from.about, from.in, from.out, from.src, from.dst = "new connection from pods of other nodes to pods of this node", link{name: p.Tunnel}, link{pod: true}, other, own
		out = append(out, to, from)
	}
	if l, ok := t.Handshakes.Get(); ok {
		udp := packet{family: opt.FamilyOf(l.Address), protocol: unix.IPPROTO_UDP}
		in, leaving := udp, udp
		in.kind, in.about, in.hooks = Received, "handshake that a peer begins", []uint32{unix.NF_INET_PRE_ROUTING, unix.NF_INET_LOCAL_IN}
		in.in, in.dst, in.port = link{name: l.Uplink}, l.Address, l.Port
		leaving.kind, leaving.about, leaving.hooks = Sent, "handshake that this node begins", []uint32{unix.NF_INET_LOCAL_OUT, unix.NF_INET_POST_ROUTING}
		leaving.out, leaving.src, leaving.sourcePort = link{name: l.Uplink}, l.Address, l.Port
		out = append(out, in, leaving)
	}
	return out
}

// at returns the packet as the kernel knows it at a hook; ok is false when the packet does not come there.
func (p packet) at(hook uint32) (seen packet, ok bool) {
	switch hook {
	case unix.NF_INET_PRE_ROUTING: // not routed yet
		p.out = link{}
	case unix.NF_INET_POST_ROUTING: // old kernels do not tell where it came from
		p.in = link{}
	}
	return p, slices.Contains(p.hooks, hook)
}

// networkHeader returns the header of IPv4 or IPv6: its protocol and its addresses are known.
func (p packet) networkHeader() value {
	address := func(a netip.Addr) value {
		if !a.IsValid() {
			return unknowable(p.family.Bits() / 8)
		}
		return certainly(a.AsSlice()...)
	}
	addresses := address(p.src).then(address(p.dst))
	if p.family == opt.V6 {
		return unknowable(6).then(certainly(p.protocol)).then(unknowable(1)).then(addresses)
	}
	return unknowable(9).then(certainly(p.protocol)).then(unknowable(2)).then(addresses)
}

// transportHeader returns the ports.
func (p packet) transportHeader() value {
	port := func(n uint16) value {
		if n == 0 {
			return unknowable(2)
		}
		return certainly(byte(n>>8), byte(n))
	}
	return port(p.sourcePort).then(port(p.port))
}
