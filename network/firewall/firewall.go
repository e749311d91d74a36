// Package firewall owns what packets may do on this node: the masquerade of what leaves
// the overlay, the forward rules, and the guard that keeps overlay addresses off the
// uplinks in plaintext. Rules are data, made by pure functions; two back-ends, iptables
// and nftables, list what is there and return the changes that make it so. It knows
// nothing of leases, WireGuard or etcd.
package firewall

import "net/netip"

// Scope is what the rules of one family are made from. It is comparable with ==.
type Scope struct {
	Network netip.Prefix // the whole overlay of the family
	Subnet  netip.Prefix // this node's part of it
}
