// Package page is a node that does not exist, to look at its page: reports of a cluster of any
// size, with some faults in it, that change with time. The page and its stream are the real
// page's; the answers have the types of network/node.
package page
