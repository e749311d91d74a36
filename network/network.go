// Package network owns the desired state of a node's kernel, and the way to it. An Observer
// lists the links, addresses and routes of the host, once for each pass, and derives the
// HostState. Plan is a pure function of the cluster network, this node, the HostState and
// all leases; the Reconciler lists what each part holds, compares, and applies named
// changes. The package does not know etcd, files other than subnet.env, or how WireGuard
// moves packets.
package network
