package etcd

import (
	"net/netip"

	"github.com/loden-net/loden/config/opt"
	"github.com/loden-net/loden/subnet"
)

// layout says where things are under the prefix.
type layout struct{ prefix string }

func (l layout) config() string { return l.prefix + "/config" }

// leases is the branch that flannel reads. flannel watches it without the slash and drops
// every peer at a key it cannot parse, so nothing else of ours may begin with it.
func (l layout) leases() string { return l.prefix + "/subnets/" }

func (l layout) lease(key string) string { return l.leases() + key }

func (l layout) guard(p netip.Prefix) string { return l.prefix + "/guards/" + subnet.FormatSubnet(p) }

func (l layout) node(name string) string { return l.prefix + "/nodes/" + name }

// guards returns the guard keys of a set of subnets.
func (l layout) guards(subnets opt.Dual[netip.Prefix]) []string {
	var out []string
	for _, p := range subnets.All() {
		out = append(out, l.guard(p))
	}
	return out
}

// mine returns the keys that bear the name of l's node while it holds l.
func (l layout) mine(lease subnet.Lease) []string {
	return append(l.guards(lease.Subnets), l.node(lease.Node))
}
