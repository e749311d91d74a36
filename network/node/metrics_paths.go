package node

import "github.com/prometheus/client_golang/prometheus"

// The metrics of the paths to peers.
var (
	metricPathState = metric("loden_peer_state", "Constant 1; the state of the path to a peer: up, degraded, one-way, mtu, down, unknown.", "node", "family", "state")
	metricPathRTT   = metric("loden_peer_rtt_seconds", "Quantiles of the last 64 round trips through the tunnel to a peer.", "node", "family", "quantile")
	metricPathLoss  = metric("loden_peer_loss_ratio", "Share of the last 16 probes to a peer that were lost, 0 to 1.", "node", "family")
	metricPathMTU   = metric("loden_peer_mtu_bytes", "Size of the largest packet that came back through the tunnel; absent before it is measured.", "node", "family")
	metricPathSince = metric("loden_peer_state_since_timestamp_seconds", "Start of the state of the path to a peer.", "node", "family")
	metricProbes    = metric("loden_probe_datagrams_total", "Datagrams of the probes: asked, replied, received, and those that got no answer: forged, of an unknown sender, beyond the limits.", "kind")
)

// collectPaths sends the metrics of the paths to a peer.
func collectPaths(p PeerReport, gauge func(*prometheus.Desc, float64, ...string)) {
	for _, path := range p.Paths {
		gauge(metricPathState, 1, p.Node, path.Family, path.State)
		gauge(metricPathSince, unixSeconds(path.Since), p.Node, path.Family)
		gauge(metricPathLoss, path.Loss, p.Node, path.Family)
		if path.RTT50 > 0 {
			gauge(metricPathRTT, path.RTT50, p.Node, path.Family, "0.5")
			gauge(metricPathRTT, path.RTT99, p.Node, path.Family, "0.99")
		}
		if path.MTU > 0 {
			gauge(metricPathMTU, float64(path.MTU), p.Node, path.Family)
		}
	}
}

// collectProbes sends the counters of the probes.
func collectProbes(p ProbeReport, count func(*prometheus.Desc, float64, ...string)) {
	for kind, n := range map[string]uint64{
		"asked": p.Asked, "replied": p.Replied, "received": p.Received, "forged": p.Forged, "unknown": p.Unknown, "limited": p.Limited,
	} {
		count(metricProbes, float64(n), kind)
	}
}
