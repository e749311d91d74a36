// Package node owns one node of the network as a whole: it ties the store, the reconciler
// and the machine together, keeps the node's lease, and reports. Run is the daemon; Plan,
// Check and Down look at a host or clear it. The package knows neither flags nor tables:
// a program such as cmd/loden gives it Settings and prints its results.
package node
