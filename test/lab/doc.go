// Package lab owns a whole Loden cluster on one machine: an etcd, nodes that run the real
// daemon, pods attached through the real CNI plugin, and an outside world. The demo and
// the system tests are two users of it. It knows nothing of how the daemon works: it
// starts programs, sends packets and looks at the wires.
//
//	             switch "underlay" (a single family)             switch "internet" (both families)
//	  ┌───────────┬──────────┴┬───────────┐              ┌───────────┬──────┴────┬───────────┐
//	store       node1       node2       node3          outside     node1       node2       node3
//	eth0        eth0        eth0        eth0           eth0        eth1        eth1        eth1
//	etcd          │           │           │            answers     default routes go to outside
//	            cni0 ── node1-pod1, node1-pod2, …
//
// It runs inside a sandbox (sandbox.Enter) and therefore cannot leave anything behind.
package lab
