package config

import (
	"net/netip"

	"github.com/loden-net/loden/config/opt"
)

// Env is subnet.env: what the CNI plugin (and docker) must know of this node. Its form is
// flannel's, name for name and in flannel's order, so that flannel's plugin reads it too.
type Env struct {
	Networks opt.Dual[netip.Prefix] // the overlay
	Subnets  opt.Dual[netip.Prefix] // this node's subnet, masked
	MTU      int                    // of a pod's interface, bytes
	Masq     bool                   // whether the daemon masquerades, so that a bridge must not
}
