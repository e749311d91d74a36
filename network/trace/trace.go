// Package trace follows a packet of the overlay through this host by questions to the kernel: the
// bridge of the pods, forwarding, and the route with all rules of the host. The first finding that
// fails is the broken step. The package changes no part of the host, and must not know leases,
// peers or etcd.
//
//	pod ─ veth ─ bridge ─► forwarding ─► route (rules, tables) ─► tunnel      Outbound
//	tunnel ─► forwarding ─► route ─► bridge ─ veth ─ pod                      Inbound
package trace

import (
	"net/netip"

	"github.com/loden-net/loden/config/opt"
)

// Finding is the result of a step: the observation, and for a fault its cause and the remedy.
type Finding struct {
	What   string `json:"what"`   // the step
	State  State  `json:"state"`  // the verdict
	Detail string `json:"detail"` // the observation; for a fault the cause
	Remedy string `json:"remedy,omitempty"`
}

// State is the verdict of a finding.
type State string

// The states of a finding.
const (
	Good    State = "ok"
	Warn    State = "warn"    // it works, but perhaps not as the operator expects
	Bad     State = "FAIL"    // packets do not pass
	Unknown State = "unknown" // the question has no answer here
)

// Host is this host and its part of the overlay. Kernel and Tunnel must be set.
type Host struct {
	Kernel  Kernel
	Tunnel  string                 // name of the WireGuard interface
	Network opt.Dual[netip.Prefix] // the overlay
	Subnet  opt.Dual[netip.Prefix] // of this node's pods
}

// Kernel answers questions about a host. Linux is the kernel of the calling thread's network
// namespace.
type Kernel interface {
	// Lookup asks for the route of a packet, with all rules of the host.
	Lookup(Query) (Route, error)
	// Rules lists the routing rules of a family, lowest priority number first.
	Rules(opt.Family) ([]Rule, error)
	// Links lists all interfaces.
	Links() ([]Link, error)
	// Neighbour returns the entry of the neighbour table for an address on a link; the zero
	// Neighbour when there is no entry.
	Neighbour(link string, a netip.Addr) (Neighbour, error)
	// Sysctl reads a kernel setting by its path below /proc/sys.
	Sysctl(path string) (string, error)
}

// Query is a packet for which a route is looked up.
type Query struct {
	Src, Dst netip.Addr // Src may be the zero Addr when the packet is made by the host
	In       string     // the interface by which the packet arrives; "" for a packet of the host
}

// Route is the kernel's answer to a Query. Refused is the kernel's error where it forwards no
// such packet.
type Route struct {
	Link    string
	Kind    string // unicast, local, unreachable, blackhole, prohibit, …
	Dst     netip.Prefix
	Table   int
	Via     netip.Addr // the gateway; the zero Addr for none
	Refused error
}

// Rule is a routing rule.
type Rule struct {
	Priority int
	Table    int
	Text     string // the selector, as ip-rule(8) writes it
}

// Link is an interface.
type Link struct {
	Name      string
	Kind      string // the kernel's name of a virtual link's kind
	Up        bool
	MTU       int // bytes
	Master    string
	Addresses []netip.Prefix
}

// Neighbour is an entry of the neighbour table.
type Neighbour struct {
	Present bool
	Failed  bool   // the neighbour gave no answer
	Port    string // the bridge port behind which it was seen; "" when that is not known
}

// The tables that every host has (rtnetlink(7)).
const (
	mainTable  = 254
	localTable = 255
)

// ip returns the name of the ip command for a family, for remedies.
func ip(f opt.Family) string {
	if f == opt.V6 {
		return "ip -6"
	}
	return "ip"
}
