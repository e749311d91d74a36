// Package network owns what a node's kernel should hold, and making it so. Plan is a pure
// function of the cluster network, this node and all leases; the Reconciler lists what is,
// compares, and applies named changes. It knows nothing of etcd, of files other than
// subnet.env, or of how WireGuard moves packets.
package network
