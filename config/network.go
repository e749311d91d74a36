package config

import (
	"net/netip"
	"time"

	"github.com/loden-net/loden/config/opt"
)

// Network is the cluster's network document, valid and complete: every default is filled
// in. Only ParseNetwork makes one; the zero value is a network with no family. It is
// comparable with ==.
type Network struct {
	Ranges  opt.Dual[Range] // the families that are switched on
	Backend Backend

	// NFTables is flannel's EnableNFTables: --firewall auto then chooses nftables.
	NFTables bool
}

// Range is the address range of which a family's node subnets are parts.
type Range struct {
	Network   netip.Prefix // the whole overlay of the family, masked
	SubnetLen int          // prefix length of a node's subnet, bits
	SubnetMin netip.Addr   // first subnet that may be handed out
	SubnetMax netip.Addr   // last subnet that may be handed out
}

// Contains reports whether p is a node subnet of the range: right length, aligned, and
// between SubnetMin and SubnetMax.
func (r Range) Contains(p netip.Prefix) bool {
	return p.Bits() == r.SubnetLen && p == p.Masked() && r.Network.Contains(p.Addr()) &&
		!p.Addr().Less(r.SubnetMin) && !r.SubnetMax.Less(p.Addr())
}

// Backend is the document's Backend object: how nodes speak to each other.
type Backend struct {
	ListenPort   uint16                   // UDP port of a node that does not choose its own; 51820 by default
	MTU          opt.Option[int]          // underlay MTU in bytes, in place of the uplink's own
	PresharedKey opt.Option[PresharedKey] // the same key for the whole mesh, as in flannel
	Keepalive    time.Duration            // persistent keepalive; 0 sends none
	Mode         Mode                     // which underlay family a tunnel prefers
}

// PresharedKey is a WireGuard pre-shared key. It never prints.
type PresharedKey [32]byte

// String hides the key.
func (PresharedKey) String() string { return "(hidden)" }

// GoString hides the key.
func (PresharedKey) GoString() string { return "(hidden)" }

// MarshalJSON hides the key.
func (PresharedKey) MarshalJSON() ([]byte, error) { return []byte(`"(hidden)"`), nil }

// Mode says which underlay family carries the tunnel to a peer that offers both. The same
// tunnel carries both overlay families in every mode.
type Mode string

// The modes of flannel's document. Loden has a single tunnel, so flannel's "separate" (a
// tunnel for each family) is read as ModeAuto.
const (
	ModeAuto Mode = "auto" // IPv4 where both ends have it, else IPv6
	ModeIPv4 Mode = "ipv4" // IPv4 only
	ModeIPv6 Mode = "ipv6" // IPv6 only
)
