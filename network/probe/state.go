// Package probe owns the service by which nodes talk to each other inside the tunnel: it asks every
// peer for a sign of life and judges the path to it, by family. It must not know leases,
// etcd or the node that runs it.
package probe

// The states of a path, from good to bad. A report shows the worst path of a peer.
const (
	Up       = "up"       // questions are answered
	Unknown  = "unknown"  // there is no proof for or against the path
	Degraded = "degraded" // some answers are lost
	MTU      = "mtu"      // small packets pass, packets of the tunnel's MTU do not
	OneWay   = "one-way"  // packets arrive in one direction only
	Down     = "down"     // no packet arrives in either direction
)

// Worse returns the worse of two states. "" counts as better than every state.
func Worse(a, b string) string {
	if rank(a) < rank(b) {
		return b
	}
	return a
}

// rank returns how bad a state is.
func rank(state string) int {
	for i, s := range [...]string{Up, Unknown, Degraded, MTU, OneWay, Down} {
		if s == state {
			return i + 1
		}
	}
	return 0
}
