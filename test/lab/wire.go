package lab

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"net/netip"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/loden-net/loden/config/opt"
	"github.com/loden-net/loden/test/sandbox"
)

// Kind is the kind of a frame on a wire.
type Kind string

// The kinds of frames.
const (
	Tunnel     Kind = "wireguard"   // WireGuard's UDP between nodes
	Etcd       Kind = "etcd"        // to and from the store
	Neighbour  Kind = "neighbour"   // ARP, neighbour discovery, multicast membership
	Masked     Kind = "masqueraded" // between a node's own address and the outside
	Clear      Kind = "clear"       // an overlay address, or the marker of pod traffic: a leak
	Unexpected Kind = "unexpected"  // anything else
)

// Wire counts the frames on a switch.
type Wire struct {
	tap      *sandbox.Tap
	host     *sandbox.Host // that canaries are sent from, by iface
	iface    string
	classify func(sandbox.Packet) Kind

	mu       sync.Mutex // guards all below
	counts   map[Kind]int
	clear    opt.Dual[int]         // frames in clear, by family
	leaked   leaks                 // the same, by their addresses
	tunnels  map[[2]netip.Addr]int // WireGuard frames by sender and receiver
	examples []string              // the first frames that should not have been there
	canaries map[string]int        // canary text → how often it was seen as clear
	missed   uint32                // frames that the kernel could not hand over
	err      error                 // why the tap ended, if it did
}

// maxExamples is how many bad frames are kept for the report.
const maxExamples = 8

func newWire(s *sandbox.Switch, host *sandbox.Host, iface string, classify func(sandbox.Packet) Kind) (*Wire, error) {
	tap, err := s.NewTap()
	if err != nil {
		return nil, err
	}
	return &Wire{
		tap: tap, host: host, iface: iface, classify: classify,
		counts: map[Kind]int{}, tunnels: map[[2]netip.Addr]int{}, canaries: map[string]int{},
	}, nil
}

// run looks at the wire until ctx is done.
func (w *Wire) run(ctx context.Context) {
	err := w.tap.Run(ctx, w.see)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.err = err
}

// see counts a frame.
func (w *Wire) see(frame []byte) {
	p := sandbox.ParseFrame(frame)
	kind := w.classify(p)
	if isOverlay(p.Src) || isOverlay(p.Dst) || bytes.Contains(frame, []byte(marker)) {
		kind = Clear
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if text, ok := canaryIn(frame); ok {
		if kind == Clear {
			w.canaries[text]++
		}
		return
	}
	w.counts[kind]++
	switch kind {
	case Tunnel:
		w.tunnels[[2]netip.Addr{p.Src, p.Dst}]++
	case Clear, Unexpected:
		if kind == Clear && p.Src.IsValid() {
			f := opt.FamilyOf(p.Src)
			w.clear = w.clear.With(f, w.clear.Of(f).Or(0)+1)
		}
		if kind == Clear {
			w.leaked.add(p)
		}
		if len(w.examples) < maxExamples {
			w.examples = append(w.examples, fmt.Sprintf("%s: %s, %d bytes", kind, describe(p), len(frame)))
		}
	}
}

// Counts returns how many frames of each kind have been seen.
func (w *Wire) Counts() map[Kind]int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return maps.Clone(w.counts)
}

// Clear returns how many frames in clear have been seen of each family.
func (w *Wire) Clear() opt.Dual[int] {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.clear
}

// leaks returns the frames in clear so far.
func (w *Wire) leaks() leaks {
	w.mu.Lock()
	defer w.mu.Unlock()
	return leaks{maps.Clone(w.leaked.pods), w.leaked.foreign}
}

// tunnelled returns how many WireGuard frames have crossed between two nodes, both ways.
func (w *Wire) tunnelled(a, b netip.Addr) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.tunnels[[2]netip.Addr{a, b}] + w.tunnels[[2]netip.Addr{b, a}]
}

// Missed returns how many frames the kernel could not hand over since the beginning.
func (w *Wire) Missed() (uint32, error) {
	now, err := w.tap.Missed()
	w.mu.Lock()
	defer w.mu.Unlock()
	w.missed += now
	return w.missed, err
}

// Problems returns what should not have been on the wire, and whether looking at it went
// wrong. Call Sync first, so that everything sent by then has been looked at.
func (w *Wire) Problems() []string {
	missed, err := w.Missed()
	w.mu.Lock()
	defer w.mu.Unlock()
	var out []string
	for _, kind := range []Kind{Clear, Unexpected} {
		if n := w.counts[kind]; n > 0 {
			out = append(out, fmt.Sprintf("%d frames on the wire were %s", n, kind))
		}
	}
	out = append(out, w.examples...)
	if missed > 0 {
		out = append(out, fmt.Sprintf("the packet socket missed %d frames", missed))
	}
	for _, err := range []error{err, w.err} {
		if err != nil {
			out = append(out, "packet socket: "+err.Error())
		}
	}
	return out
}

// isOverlay reports whether a is an address of the overlay.
func isOverlay(a netip.Addr) bool {
	for _, p := range overlay().All() {
		if p.Contains(a) {
			return true
		}
	}
	return false
}

// within reports whether both ends of p are in the same network of the list.
func within(nets opt.Dual[netip.Prefix], p sandbox.Packet) bool {
	for _, n := range nets.All() {
		if n.Contains(p.Src) && n.Contains(p.Dst) {
			return true
		}
	}
	return false
}

// onUnderlay returns the kind of a frame on the underlay.
func onUnderlay(p sandbox.Packet) Kind {
	switch {
	case isNeighbour(p):
		return Neighbour
	case !within(underlay(), p):
		return Unexpected
	case (p.Protocol == unix.IPPROTO_UDP || p.Unreachable()) && tunnelPort(p.SrcPort) && tunnelPort(p.DstPort):
		return Tunnel // a host whose engine has just ended refuses datagrams, and quotes their ciphertext
	case p.Protocol == unix.IPPROTO_TCP && (p.SrcPort == etcdPort || p.DstPort == etcdPort):
		return Etcd
	}
	return Unexpected
}

// tunnelPort reports whether WireGuard uses the port, in a lab whose document may move it.
func tunnelPort(port uint16) bool { return port == WireGuardPort || port == MovedPort }

// onInternet returns the kind of a frame on the way to the outside.
func onInternet(p sandbox.Packet) Kind {
	switch {
	case isNeighbour(p):
		return Neighbour
	case within(internet(), p):
		return Masked
	}
	return Unexpected
}

// isNeighbour reports whether p is neighbour discovery, which every host sends.
func isNeighbour(p sandbox.Packet) bool {
	switch {
	case p.EtherType == unix.ETH_P_ARP, p.Protocol == unix.IPPROTO_IGMP:
		return true
	case p.Protocol == unix.IPPROTO_ICMPV6: // MLD (RFC 2710, 3810) and ND (RFC 4861)
		return p.ICMPType >= 130 && p.ICMPType <= 137 || p.ICMPType == 143
	}
	return false
}

// describe names a packet for a reader.
func describe(p sandbox.Packet) string {
	if !p.Src.IsValid() {
		return fmt.Sprintf("ethertype %#04x", p.EtherType)
	}
	if p.EtherType == unix.ETH_P_ARP {
		return fmt.Sprintf("ARP %s > %s", p.Src, p.Dst)
	}
	return fmt.Sprintf("%s port %d > %s port %d, protocol %d type %d", p.Src, p.SrcPort, p.Dst, p.DstPort, p.Protocol, p.ICMPType)
}
