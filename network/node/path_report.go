package node

import (
	"net/netip"
	"strings"
	"time"

	"github.com/loden-net/loden/config/opt"
	"github.com/loden-net/loden/network/probe"
)

// PathReport is the judgement of the path to a peer in one family of the overlay.
type PathReport struct {
	Family string    `json:"family"`           // ipv4, ipv6
	State  string    `json:"state"`            // up, degraded, one-way, mtu, down, unknown
	Since  time.Time `json:"since,omitzero"`   // start of the state
	Reason string    `json:"reason,omitempty"` // cause in words, for every state but up
	Remedy string    `json:"remedy,omitempty"`
	RTT50  float64   `json:"rttP50Seconds,omitzero"`
	RTT99  float64   `json:"rttP99Seconds,omitzero"`
	Loss   float64   `json:"loss"`           // 0..1 of the probes of the window
	MTU    int       `json:"mtu,omitzero"`   // bytes of the largest probe that came back; 0: not measured
	Heard  time.Time `json:"heard,omitzero"` // last authentic message of the peer in this family
}

// pathsOf returns the paths to a peer with the given subnets, IPv4 first, and the worst of
// their states.
func pathsOf(subnets opt.Dual[netip.Prefix]) (paths []PathReport, worst string) {
	for f := range subnets.All() {
		p := PathReport{Family: strings.ToLower(f.String()), State: probe.Unknown, Reason: "the path has not been probed"}
		paths, worst = append(paths, p), probe.Worse(worst, p.State)
	}
	if worst == "" {
		worst = probe.Unknown
	}
	return paths, worst
}
