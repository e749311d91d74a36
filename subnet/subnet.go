// Package subnet owns the question of who holds which pod addresses: leases, snapshots of
// all leases, their text form, and the choice of a free subnet. It is pure: it knows
// nothing of etcd (that is subnet/etcd) or of the kernel.
package subnet

import (
	"net/netip"

	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"github.com/loden-net/loden/config/opt"
)

// Lease is one node's claim to its subnets, and how to reach it. It is comparable with ==.
type Lease struct {
	Node      string                   // node name; empty for a lease that flannel wrote
	Subnets   opt.Dual[netip.Prefix]   // masked; at least one family
	Endpoints opt.Dual[netip.AddrPort] // underlay addresses by underlay family; at least one
	Key       wgtypes.Key              // WireGuard public key
	Since     int64                    // etcd create revision: the lower one is the older claim
}

// Snapshot is all leases at one moment: complete, sorted, never mutated once made.
type Snapshot struct {
	Revision int64     // etcd revision it is true at
	Leases   []Lease   // sorted by Since, then by key form
	Problems []Problem // entries in the store that are no lease
}

// Problem is something wrong with what another node, or an operator, wrote. It is shown in
// status and metrics; it never stops anything else.
type Problem struct {
	Object string `json:"object"` // the etcd key, or the node, it is about
	Reason string `json:"reason"` // one lower-case sentence
}
