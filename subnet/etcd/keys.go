package etcd

import (
	"net/netip"

	"github.com/loden-net/loden/config/opt"
	"github.com/loden-net/loden/subnet"
)

// layout builds the keys under the prefix.
type layout struct{ prefix string }

func (l layout) config() string { return l.prefix + "/config" }

// leases is the branch that flannel reads. flannel watches it without the slash and drops
// every peer at a key it cannot parse, so no other key of ours may begin with it.
func (l layout) leases() string { return l.prefix + "/subnets/" }

// lease returns the key of a lease from the lease's key form (subnet.FormatKey).
func (l layout) lease(form string) string { return l.leases() + form }

// owners is the branch of the owner keys. On the wire it is called "guards".
func (l layout) owners() string { return l.prefix + "/guards/" }

// owner returns the owner key of a subnet: its value is the name of the node that holds
// the subnet.
func (l layout) owner(p netip.Prefix) string { return l.owners() + subnet.FormatSubnet(p) }

func (l layout) node(name string) string { return l.prefix + "/nodes/" + name }

// ownersOf returns the owner keys of a set of subnets, IPv4 first.
func (l layout) ownersOf(subnets opt.Dual[netip.Prefix]) []string {
	var out []string
	for _, p := range subnets.All() {
		out = append(out, l.owner(p))
	}
	return out
}

// named returns the keys that bear the name of the lease's node while it holds the lease:
// the owner keys and the node's record.
func (l layout) named(lease subnet.Lease) []string {
	return append(l.ownersOf(lease.Subnets), l.node(lease.Node))
}
