package node

import (
	"fmt"
	"net/netip"
	"strings"
	"time"

	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

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

	ClockAhead float64 `json:"clockAheadSeconds,omitzero"` // the peer's clock before this node's; 0: not measured
}

// pathsOf returns the judgements of the paths to a peer with the given key and subnets, IPv4 first,
// and the worst of their states.
func (p *prober) pathsOf(key wgtypes.Key, subnets opt.Dual[netip.Prefix]) (paths []PathReport, worst string) {
	for f := range subnets.All() {
		r := p.pathOf(key, f)
		paths, worst = append(paths, r), probe.Worse(worst, r.State)
	}
	if worst == "" {
		worst = probe.Unknown
	}
	return paths, worst
}

// familyName returns the name of a family in reports: ipv4, ipv6.
func familyName(f opt.Family) string { return strings.ToLower(f.String()) }

func (p *prober) pathOf(key wgtypes.Key, f opt.Family) PathReport {
	family := familyName(f)
	if p.interval <= 0 {
		return PathReport{Family: family, State: probe.Unknown, Reason: "--probe-interval 0 switches probes off"}
	}
	path, ok := p.Path(key, f)
	if !ok {
		return PathReport{Family: family, State: probe.Unknown, Reason: "this node has no address of this family"}
	}
	return PathReport{
		Family: family, State: path.State, Since: path.Since, Reason: path.Reason, Remedy: path.Remedy,
		RTT50: path.RTT50.Seconds(), RTT99: path.RTT99.Seconds(), Loss: path.Loss, MTU: path.MTU, Heard: path.Heard,
		ClockAhead: path.ClockAhead.Seconds(),
	}
}

// ProbeReport counts the datagrams between this node's daemon and the daemons of its peers, since this
// daemon started.
type ProbeReport struct {
	Interval float64 `json:"intervalSeconds"` // 0: switched off
	Asked    uint64  `json:"asked"`
	Replied  uint64  `json:"replied"`
	Received uint64  `json:"received"`
	Forged   uint64  `json:"forged"`  // datagrams from the address of a peer that the peer did not seal
	Unknown  uint64  `json:"unknown"` // datagrams from other addresses, such as pods
	Limited  uint64  `json:"limited"` // questions beyond the limits, which got no answer
}

// counted returns the counters of the probes.
func (p *prober) counted() ProbeReport {
	c := p.Counts()
	return ProbeReport{
		Interval: p.interval.Seconds(), Asked: c.Asked, Replied: c.Replied, Received: c.Received,
		Forged: c.Forged, Unknown: c.Unknown, Limited: c.Limited,
	}
}

// maxBadPaths bounds the lines of badPaths.
const maxBadPaths = 20

// badPaths returns a line for each path that does not carry everything.
func badPaths(r Report) []string {
	var out []string
	for _, peer := range r.Peers {
		for _, p := range peer.Paths {
			if p.State == probe.Up || p.State == probe.Unknown {
				continue
			}
			if len(out) == maxBadPaths {
				return append(out, "…")
			}
			out = append(out, fmt.Sprintf("%s over %s: %s: %s", peerTitle(peer), p.Family, p.State, p.Reason))
		}
	}
	return out
}
