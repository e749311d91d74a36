// Package network owns the desired state of a node's kernel, and the way to it. Plan is a
// pure function of the cluster network, this node, its host and all leases; the Reconciler
// lists the observed state, compares, and applies named changes. It does not know etcd, files other than
// subnet.env, or of how WireGuard moves packets.
package network
