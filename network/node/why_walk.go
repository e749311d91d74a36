package node

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/loden-net/loden/config/opt"
	"github.com/loden-net/loden/network/probe"
	"github.com/loden-net/loden/network/trace"
	"github.com/loden-net/loden/subnet"
)

// The time limits of an explanation, and of another node's half in it.
const (
	whyLimit     = 4 * time.Second
	askHalfLimit = 2500 * time.Millisecond
)

// member is a node with a valid lease.
type member struct {
	subnet.Lease
	self bool
}

// members returns this node, and the nodes whose leases Plan accepted.
func (n *node) members(context.Context) []member {
	s, _ := n.reconciler.Status()
	in := n.reconciler.Inputs()
	var out []member
	if own, ok := in.Lease.Get(); ok {
		out = append(out, member{own, true})
	}
	for _, l := range acceptedLeases(s.State, in.Leases) {
		out = append(out, member{l, false})
	}
	slices.SortFunc(out[min(1, len(out)):], func(a, b member) int { return strings.Compare(a.Node, b.Node) })
	return out
}

// walk makes this node's findings for an errand, in the order of the packet's way.
func (n *node) walk(ctx context.Context, e errand) []Finding {
	h := n.traced()
	rep := n.reporter.report(ctx)
	peer, known := peerWithKey(rep, e.Peer)
	links, err := h.Kernel.Links()
	if err != nil {
		return []Finding{{What: "interfaces", State: Unknown, Detail: err.Error()}}
	}
	bridge, hasBridge := h.Bridge(links)
	switch e.Role {
	case roleSender:
		out := n.podHops(h, e.Src, e.SrcPod, bridge, hasBridge)
		out = append(out, n.filterHops(ctx, h, rep, bridge.Name)...)
		in := ""
		if e.SrcPod {
			in = bridge.Name
		}
		out = append(out, h.Towards(e.Src, e.Dst, in))
		out = append(out, n.leaseHops(rep, e, peer, known)...)
		out = append(out, tunnelHops(h, rep, peer, known, opt.FamilyOf(e.Dst))...)
		return append(out, n.masquerade(e))
	case roleReceiver:
		out := n.leaseHops(rep, e, peer, known)
		out = append(out, tunnelHops(h, rep, peer, known, opt.FamilyOf(e.Dst))...)
		out = append(out, n.filterHops(ctx, h, rep, bridge.Name)...)
		out = append(out, n.podHops(h, e.Dst, e.DstPod, bridge, hasBridge)...)
		in := ""
		if e.DstPod && hasBridge {
			out = append(out, h.Inwards(e.Src, e.Dst, bridge.Name))
			in = bridge.Name
		}
		back := h.Towards(e.Dst, e.Src, in)
		back.What = "route back to the tunnel"
		return append(out, back)
	}
	out := n.podHops(h, e.Src, e.SrcPod, bridge, hasBridge)
	return append(out, n.podHops(h, e.Dst, e.DstPod, bridge, hasBridge)...)
}

// traced returns this host for the trace package.
func (n *node) traced() trace.Host {
	in := n.reconciler.Inputs()
	h := trace.Host{Kernel: n.linux, Tunnel: n.settings.Interface, Subnet: in.Lease.Or(subnet.Lease{}).Subnets}
	for f, r := range in.Network.Ranges.All() {
		h.Network = h.Network.With(f, r.Network)
	}
	return h
}

func peerWithKey(rep Report, key string) (PeerReport, bool) {
	i := slices.IndexFunc(rep.Peers, func(p PeerReport) bool { return p.PublicKey == key })
	if i < 0 {
		return PeerReport{}, false
	}
	return rep.Peers[i], true
}

// podHops judges the bridge and the link of a pod of this node.
func (n *node) podHops(h trace.Host, a netip.Addr, pod bool, bridge trace.Link, hasBridge bool) []Finding {
	switch {
	case !pod:
		return nil
	case !hasBridge:
		return []Finding{{What: "pod bridge", State: Bad, Detail: fmt.Sprintf("this node has no pod, so none has the address %s", a), Remedy: "look for the pod: kubectl get pods -A -o wide"}}
	}
	out := h.CheckBridge()
	if a == bridgeAddress(bridge, a) {
		return out
	}
	return append(out, h.CheckPod(a, bridge))
}

// bridgeAddress returns the address when the bridge itself holds it, else the zero Addr.
func bridgeAddress(bridge trace.Link, a netip.Addr) netip.Addr {
	for _, p := range bridge.Addresses {
		if p.Addr() == a {
			return a
		}
	}
	return netip.Addr{}
}

// filterHops judges forwarding, the packet filters of other programs, and the guard.
func (n *node) filterHops(ctx context.Context, h trace.Host, rep Report, bridge string) []Finding {
	out := []Finding{h.CheckForwarding(bridge)}
	s, _ := n.reconciler.Status()
	filters := Finding{What: "packet filters", State: Good, Detail: "no chain of another program drops the pods' packets"}
	problems, err := n.host.firewall.Problems(ctx, s.State.Firewall)
	switch {
	case err != nil:
		filters.State, filters.Detail = Unknown, oneLine(err.Error())
	case len(problems) > 0:
		cause, remedy, _ := strings.Cut(problems[0].Reason, ": accept the pods' packets there: ")
		filters.State, filters.Detail, filters.Remedy = Bad, problems[0].Object+": "+cause, remedy
	}
	guard := Finding{What: "guard", State: Good, Detail: rep.Firewall.Guard + ": overlay packets leave by " + h.Tunnel + " only"}
	if rep.Firewall.Guard == "off" {
		guard.Detail = "off"
	}
	return append(out, filters, guard)
}

// leaseHops judges this node's lease and the other node's.
func (n *node) leaseHops(rep Report, e errand, peer PeerReport, known bool) []Finding {
	var out []Finding
	if rep.Subnets.IsZero() {
		out = append(out, Finding{What: "lease", State: Bad, Detail: "this node has no lease: " + rep.Reason, Remedy: "loden status"})
	}
	if !known {
		f := Finding{What: "lease", State: Bad, Detail: fmt.Sprintf("%s is no peer of this node", e.Peer), Remedy: "look at its lease: loden lease list; start `loden run` on that node"}
		for _, p := range rep.Problems {
			f.Detail += "; " + p.Object + ": " + p.Reason
		}
		return append(out, f)
	}
	return append(out, Finding{What: "lease", State: Good, Detail: fmt.Sprintf("%s holds %s, and its key is a peer's", peerTitle(peer), prefixText(peer.Subnets))})
}

func prefixText(d opt.Dual[netip.Prefix]) string {
	var parts []string
	for _, p := range d.All() {
		parts = append(parts, p.String())
	}
	return strings.Join(parts, " and ")
}

// freshFor is the age up to which a handshake proves that datagrams pass both ways: WireGuard
// makes another after 120 s of traffic, and drops the keypair after 180 s.
const freshFor = 150 * time.Second

// tunnelHops judges the engine, the endpoint of the peer, the datagrams each way, and the MTU.
func tunnelHops(h trace.Host, rep Report, peer PeerReport, known bool, f opt.Family) []Finding {
	if rep.Engine.Silent {
		return engineLife(rep.Engine)[:1]
	}
	if !known {
		return nil
	}
	out := []Finding{endpointHop(h, peer)}
	path := PathReport{State: probe.Unknown}
	for _, p := range peer.Paths {
		if p.Family == strings.ToLower(f.String()) {
			path = p
		}
	}
	fresh := !peer.Handshake.IsZero() && time.Since(peer.Handshake) < freshFor
	udp := Finding{What: "UDP each way", State: Good, Detail: fmt.Sprintf("last handshake with %s %v ago", peer.Endpoint, time.Since(peer.Handshake).Round(time.Second))}
	inner := Finding{What: "tunnel", State: Good, Detail: fmt.Sprintf("answers, %.1f ms", path.RTT50*1000)}
	mtu := Finding{What: "MTU", State: Good, Detail: fmt.Sprintf("%d bytes pass", path.MTU)}
	if path.MTU == 0 {
		mtu.State, mtu.Detail = Unknown, "not measured yet"
	}
	switch path.State {
	case probe.Up:
		return append(out, udp, inner, mtu)
	case probe.Degraded:
		inner.State, inner.Detail, inner.Remedy = Warn, path.Reason, path.Remedy
		return append(out, udp, inner, mtu)
	case probe.MTU:
		mtu.State, mtu.Detail, mtu.Remedy = Bad, path.Reason, path.Remedy
		return append(out, udp, inner, mtu)
	case probe.Unknown:
		inner.State, inner.Detail = Unknown, "not probed: "+path.Reason
		if !fresh {
			udp.State, udp.Detail = Unknown, "no fresh handshake; an idle peer has none"
		}
		return append(out, udp, inner)
	}
	if fresh && path.State == probe.Down {
		inner.State, inner.Detail, inner.Remedy = Bad, path.Reason, path.Remedy
		return append(out, udp, inner)
	}
	udp.State, udp.Detail, udp.Remedy = Bad, path.State+": "+path.Reason, path.Remedy
	return append(out, udp)
}

// endpointHop judges the route to the endpoint of a peer.
func endpointHop(h trace.Host, peer PeerReport) Finding {
	out := Finding{What: "endpoint", State: Good, Detail: peer.Endpoint}
	at, err := netip.ParseAddrPort(peer.Endpoint)
	if err != nil {
		return Finding{What: "endpoint", State: Bad, Detail: "the peer has no endpoint", Remedy: "start `loden run` on " + peerTitle(peer) + ", which announces it"}
	}
	r, err := h.Kernel.Lookup(trace.Query{Dst: at.Addr().Unmap().WithZone("")})
	switch {
	case err != nil:
		out.State, out.Detail = Unknown, err.Error()
	case r.Refused != nil:
		out.State, out.Detail, out.Remedy = Bad, fmt.Sprintf("this host has no route to %s: %v", at.Addr(), r.Refused), fmt.Sprintf("ip route get %s; mend the uplink or the default route", at.Addr())
	case r.Link == h.Tunnel:
		out.State, out.Detail, out.Remedy = Bad, fmt.Sprintf("%s is routed into the tunnel itself", at.Addr()), fmt.Sprintf("add a route to %s by an uplink", at.Addr())
	default:
		out.Detail = fmt.Sprintf("%s by %s", peer.Endpoint, r.Link)
	}
	if f, ok := roamed("endpoint", peer); ok && out.State == Good {
		return f
	}
	return out
}

// masquerade says how the source address of the packet is treated.
func (n *node) masquerade(e errand) Finding {
	if !n.inOverlay(e.Dst) {
		return Finding{What: "masquerade", State: Good, Detail: "the source becomes the node's address"}
	}
	return Finding{What: "masquerade", State: Good, Detail: fmt.Sprintf("none: %s lies in the overlay, so the other end sees %s", e.Dst, e.Src)}
}
