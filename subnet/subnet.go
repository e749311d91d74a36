// Package subnet owns the question which node holds which pod addresses: leases, snapshots of
// all leases, their text form, the choice of a free subnet, and which leases of other
// nodes to believe. It is pure: it knows nothing of etcd (that is subnet/etcd) or of the
// kernel.
package subnet

import (
	"cmp"
	"net/netip"
	"slices"

	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"github.com/loden-net/loden/config/opt"
	"github.com/loden-net/loden/config/sorted"
)

// Lease is a node's claim to its subnets, and how to reach it. It is comparable with ==.
type Lease struct {
	Node      string                   // node name; empty for a lease that flannel wrote
	Subnets   opt.Dual[netip.Prefix]   // masked; a family or both
	Endpoints opt.Dual[netip.AddrPort] // underlay addresses by underlay family; none only if Waiting
	Key       wgtypes.Key              // WireGuard public key; zero if Waiting
	Since     int64                    // etcd create revision: the lower number is the older claim
	Claimed   int64                    // Unix seconds at the claim, by the claiming node's clock; 0: not said
	Reserved  bool                     // the claim has no time to live: it outlasts its node
	Leaving   bool                     // its node is giving it back: its removal is next, and wanted
}

// Waiting reports whether l is a reservation that its node has not taken up (or has given
// back): it holds subnets and reaches nobody.
func (l Lease) Waiting() bool { return l.Reserved && l.Key == wgtypes.Key{} }

// Title is how a lease is called in a Problem: by its node and its key form.
func (l Lease) Title() string {
	if l.Node == "" {
		return FormatKey(l.Subnets)
	}
	return l.Node + " " + FormatKey(l.Subnets)
}

// Compare orders leases by age of the claim, oldest first; claims of the same moment by their
// key form, so that every node orders them alike.
func (l Lease) Compare(other Lease) int {
	if l.Since != other.Since { // nearly always; the text is costly over thousands of leases
		return cmp.Compare(l.Since, other.Since)
	}
	if l.Subnets == other.Subnets {
		return 0
	}
	return cmp.Compare(FormatKey(l.Subnets), FormatKey(other.Subnets))
}

// Leases is an immutable list of leases, oldest first.
type Leases = sorted.List[Lease]

// Snapshot is all leases at a moment: complete, never mutated once made.
// Reservations that wait for their node are not in it.
type Snapshot struct {
	Revision int64 // etcd revision it is true at
	Leases   Leases
	Problems []Problem // entries in the store that are no lease

	// Released holds the key forms of leases that left in an orderly way since the
	// snapshot before this one, sorted: the removal hold lets them go.
	Released []string
}

// Same reports whether s and t say the same of the cluster: all but the revision.
func (s Snapshot) Same(t Snapshot) bool {
	return s.Leases.Equal(t.Leases) && slices.Equal(s.Problems, t.Problems) && slices.Equal(s.Released, t.Released)
}

// Problem is a fault in a text that another node, or an operator, wrote. It is shown in
// status and metrics; it never stops another lease.
type Problem struct {
	Object string `json:"object"` // the etcd key, or the node, it is about
	Reason string `json:"reason"` // a lower-case sentence
}

// Compare orders problems by object.
func (p Problem) Compare(other Problem) int {
	return cmp.Or(cmp.Compare(p.Object, other.Object), cmp.Compare(p.Reason, other.Reason))
}
