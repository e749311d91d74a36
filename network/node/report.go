package node

import (
	"net/netip"
	"slices"
	"time"

	"github.com/loden-net/loden/config/opt"
	"github.com/loden-net/loden/network/probe"
	"github.com/loden-net/loden/subnet"
)

// Report describes a running node: it is the body of /status, the table of `loden status`,
// and the source of every metric.
type Report struct {
	APIVersion int `json:"apiVersion"` // 1; a change that breaks readers raises it

	Version   string `json:"version"`
	Node      string `json:"node"`
	Ready     bool   `json:"ready"`
	Reason    string `json:"reason,omitempty"` // why the node is not ready or not healthy
	Interface string `json:"interface"`
	PublicKey string `json:"publicKey"`
	Port      uint16 `json:"port"`
	MTU       int    `json:"mtu"` // of the tunnel, bytes

	Engine   EngineReport   `json:"engine"`
	Firewall FirewallReport `json:"firewall"`
	Store    StoreReport    `json:"store"`

	Networks  opt.Dual[netip.Prefix]   `json:"networks"`
	Subnets   opt.Dual[netip.Prefix]   `json:"subnets"`
	Endpoints opt.Dual[netip.AddrPort] `json:"endpoints"`
	Uplinks   opt.Dual[string]         `json:"uplinks"`

	Wire     WireReport       `json:"wire"`
	Probes   ProbeReport      `json:"probes"`
	Peers    []PeerReport     `json:"peers"`
	Problems []subnet.Problem `json:"problems"`
	Passes   PassReport       `json:"passes"`

	deviceUnknown bool // the interface gave no answer, so the report lacks the peers
}

// Healthy reports whether the node is ready and nothing is wrong with it, the store, a lease or
// the path to a peer.
func (r Report) Healthy() bool {
	return r.Ready && r.Reason == "" && len(r.Problems) == 0 && !slices.ContainsFunc(r.Peers, PeerReport.broken)
}

// Findings returns the faults that the report holds, with their remedies, and a finding for
// each part of the node without a fault.
func (r Report) Findings() []Finding { return ofReport(r) }

// EngineReport describes the WireGuard implementation.
type EngineReport struct {
	Kind   string `json:"kind"`   // kernel, or the userspace engine's name
	Reason string `json:"reason"` // why the node uses this implementation

	Silent   bool              `json:"silent,omitempty"`         // the userspace engine runs and gives no answer
	Replaced uint64            `json:"enginesReplaced,omitzero"` // engines that hung and were ended, since this daemon started
	Drops    map[string]uint64 `json:"drops,omitempty"`          // packets that the engine dropped since it began, by reason

	// Offloads is the state of each offload of the running engine, by its name: on, off (by
	// --engine-no-offload) or refused (by the kernel). Other engines tell none.
	Offloads map[string]string `json:"offloads,omitempty"`
}

// FirewallReport describes the firewall driver and the packet guard.
type FirewallReport struct {
	Kind   string         `json:"kind"`
	Reason string         `json:"reason"`
	Guard  string         `json:"guard"` // enforce, warn, off
	Clear  []GuardCounter `json:"clear"` // packets with overlay addresses that were caught in plaintext
}

// GuardCounter is a counter of the packet guard.
type GuardCounter struct {
	Family    string `json:"family"`    // ipv4, ipv6
	Direction string `json:"direction"` // in, out
	Packets   uint64 `json:"packets"`
}

// StoreReport describes the state of etcd as the node sees it.
type StoreReport struct {
	Up       bool      `json:"up"`
	Since    time.Time `json:"since"` // start of the state that Up names
	Error    string    `json:"error,omitempty"`
	Revision int64     `json:"revision"`          // of the newest snapshot
	Snapshot time.Time `json:"snapshotAt"`        // time of the newest snapshot
	FromDisk bool      `json:"fromDisk"`          // the newest snapshot is the copy on disk of an earlier run
	Held     []string  `json:"held,omitempty"`    // leases that vanished in a mass removal and are held as peers
	Skipped  int       `json:"skippedEntries"`    // keys under the prefix without a valid lease
	Expires  int64     `json:"leaseTTL,omitzero"` // seconds for which the lease outlives a silent node
}

// PeerReport describes the tunnel to another node.
type PeerReport struct {
	Node      string                   `json:"node"`
	PublicKey string                   `json:"publicKey"`
	Endpoint  string                   `json:"endpoint"`
	Announced opt.Dual[netip.AddrPort] `json:"announced,omitzero"` // endpoints in the lease
	Subnets   opt.Dual[netip.Prefix]   `json:"subnets"`
	Handshake time.Time                `json:"lastHandshake,omitzero"` // zero before the first handshake
	Received  int64                    `json:"receivedBytes"`
	Sent      int64                    `json:"sentBytes"`

	// The rates are of the last seconds, in bytes per second. They are valid when Rated is true.
	Rated        bool    `json:"rated"`
	ReceivedRate float64 `json:"receivedBytesPerSecond,omitzero"`
	SentRate     float64 `json:"sentBytesPerSecond,omitzero"`

	State string       `json:"state"`           // the worst state of Paths: up, degraded, one-way, mtu, down, unknown
	Paths []PathReport `json:"paths,omitempty"` // by family, IPv4 first
}

// broken reports whether packets of some size or direction do not reach the peer.
func (p PeerReport) broken() bool {
	return p.State == probe.Down || p.State == probe.OneWay || p.State == probe.MTU
}

// PassReport counts the passes of the reconciler.
type PassReport struct {
	Total   uint64            `json:"total"`
	Failed  uint64            `json:"failed"`
	Last    time.Time         `json:"last,omitzero"`
	Took    float64           `json:"tookSeconds"`
	Error   string            `json:"error,omitempty"`
	Changes map[string]uint64 `json:"changes"` // changes by part since the start
}

// age returns an upper bound for the time by which the snapshot is out of date: 0 while etcd
// answers, else the time since etcd stopped, or since an earlier run wrote the copy.
func (s StoreReport) age(now time.Time) time.Duration {
	switch {
	case s.FromDisk:
		return now.Sub(s.Snapshot)
	case s.Up || s.Since.IsZero():
		return 0
	}
	return now.Sub(s.Since)
}
