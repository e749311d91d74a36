package node

import (
	"net/netip"
	"time"

	"github.com/loden-net/loden/config/opt"
	"github.com/loden-net/loden/subnet"
)

// Report is what a running node says of itself: the body of /status, the table of `loden
// status`, and the source of every metric.
type Report struct {
	Version   string `json:"version"`
	Node      string `json:"node"`
	Ready     bool   `json:"ready"`
	Reason    string `json:"reason,omitempty"` // why it is not ready, or what is degraded
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
	Peers    []PeerReport     `json:"peers"`
	Problems []subnet.Problem `json:"problems"`
	Passes   PassReport       `json:"passes"`
}

// EngineReport says who encrypts.
type EngineReport struct {
	Kind   string `json:"kind"`   // kernel or the userspace engine's name
	Reason string `json:"reason"` // why this one
}

// FirewallReport says who holds the rules and what the guard has counted.
type FirewallReport struct {
	Kind   string         `json:"kind"`
	Reason string         `json:"reason"`
	Guard  string         `json:"guard"` // enforce, warn, off
	Clear  []GuardCounter `json:"clear"` // packets with overlay addresses that were caught in plaintext
}

// GuardCounter is one counter of the guard.
type GuardCounter struct {
	Family    string `json:"family"`    // ipv4, ipv6
	Direction string `json:"direction"` // in, out
	Packets   uint64 `json:"packets"`
}

// StoreReport says how etcd is.
type StoreReport struct {
	Up       bool      `json:"up"`
	Since    time.Time `json:"since"` // of the state that Up names
	Error    string    `json:"error,omitempty"`
	Revision int64     `json:"revision"`          // of the newest snapshot
	Snapshot time.Time `json:"snapshotAt"`        // when it was taken
	FromDisk bool      `json:"fromDisk"`          // it is the one that an earlier run left on disk
	Held     []string  `json:"held,omitempty"`    // leases that vanished with many others and are held as peers
	Skipped  int       `json:"skippedEntries"`    // entries under the prefix that are no lease
	Expires  int64     `json:"leaseTTL,omitzero"` // seconds that the lease outlives a silent node
}

// PeerReport is another node.
type PeerReport struct {
	Node      string                 `json:"node"`
	PublicKey string                 `json:"publicKey"`
	Endpoint  string                 `json:"endpoint"`
	Subnets   opt.Dual[netip.Prefix] `json:"subnets"`
	Handshake time.Time              `json:"lastHandshake,omitzero"` // zero: none yet
	Received  int64                  `json:"receivedBytes"`
	Sent      int64                  `json:"sentBytes"`
}

// PassReport says what the reconciler did.
type PassReport struct {
	Total   uint64            `json:"total"`
	Failed  uint64            `json:"failed"`
	Last    time.Time         `json:"last,omitzero"`
	Took    float64           `json:"tookSeconds"`
	Error   string            `json:"error,omitempty"`
	Changes map[string]uint64 `json:"changes"` // by part, since the start
}

// age returns how long the snapshot has been out of date at most: not at all while etcd
// answers, else since it stopped, or since an earlier run wrote it.
func (s StoreReport) age(now time.Time) time.Duration {
	switch {
	case s.FromDisk:
		return now.Sub(s.Snapshot)
	case s.Up || s.Since.IsZero():
		return 0
	}
	return now.Sub(s.Since)
}
