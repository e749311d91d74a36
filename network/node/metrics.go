package node

import (
	"context"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// collector makes every metric from a single report at scrape time, so that no counter is
// kept twice and metrics cost no time between scrapes.
type collector struct {
	report func(context.Context) Report
	peers  int // the most peers that have series of their own
}

// metric describes a series.
func metric(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc(name, help, labels, nil)
}

// The metrics. Dashboards for WireGuard know the names that begin with wireguard_.
var (
	metricInfo     = metric("loden_build_info", "Constant 1; the version, the WireGuard implementation and the firewall driver that run.", "version", "engine", "firewall")
	metricReady    = metric("loden_ready", "1 when the lease is held and the data path is in place.")
	metricStore    = metric("loden_store_up", "1 when etcd answers.")
	metricSince    = metric("loden_store_since_timestamp_seconds", "Since when etcd answers, or does not.")
	metricSnapshot = metric("loden_snapshot_age_seconds", "How long the leases that the peers come from have been out of date at most; 0 while etcd answers.")
	metricPeers    = metric("loden_peers", "Peers, by whether they shook hands in the last 3 minutes.", "state")
	metricHeld     = metric("loden_held_leases", "Leases that vanished with many others and are held as peers.")
	metricProblems = metric("loden_problems", "Problems that the node names: leases and entries in the store that are not used, and faults of the host.")
	metricPasses   = metric("loden_passes_total", "Passes of the reconciler.", "result")
	metricChanges  = metric("loden_changes_total", "Changes made to the host.", "part")
	metricGuard    = metric("loden_plaintext_blocked_packets_total", "Packets with overlay addresses that the guard caught.", "family", "direction")
	metricLooks    = metric("loden_wire_samples_total", "Samples of the uplinks for overlay addresses in clear (--wire-sample), by whether canaries proved them.", "proven")
	metricClear    = metric("loden_wire_clear_packets_total", "Packets with overlay addresses in clear in those samples.")
	metricReplaced = metric("loden_engines_replaced_total", "Userspace engines that hung and were ended, since the daemon started.")
	metricDrops    = metric("loden_engine_dropped_packets_total", "Packets that the userspace engine dropped since it began, by reason.", "reason")
	metricUnlisted = metric("loden_peers_without_series", "Peers beyond --metrics-peers: they have no series of their own and are in the totals.")
	metricSentAll  = metric("loden_peers_sent_bytes", "Bytes sent to all present peers since each became a peer; a peer that leaves takes its bytes away.")
	metricHeardAll = metric("loden_peers_received_bytes", "Bytes received from all present peers since each became a peer.")
	metricSent     = metric("wireguard_sent_bytes_total", "Bytes sent to the peer.", "interface", "public_key", "node")
	metricReceived = metric("wireguard_received_bytes_total", "Bytes received from the peer.", "interface", "public_key", "node")
	metricShake    = metric("wireguard_latest_handshake_seconds", "Unix time of the last handshake; 0 for none.", "interface", "public_key", "node")
)

// metricsHandler serves a registry of its own, without the metrics of other libraries. It has
// the memory of the Go runtime (go_…) and the CPU time, memory and descriptors of the daemon (process_…).
func metricsHandler(report func(context.Context) Report, peers int, more ...prometheus.Collector) http.Handler {
	registry := prometheus.NewRegistry()
	registry.MustRegister(collector{report, peers}, // a fresh registry has no other collector
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	registry.MustRegister(more...)
	return promhttp.HandlerFor(registry, promhttp.HandlerOpts{})
}

// Describe sends no description, since the peers are known at scrape time only.
func (c collector) Describe(chan<- *prometheus.Desc) {}

// scrapeLimit bounds the report for a scrape.
const scrapeLimit = 5 * time.Second

// Collect sends the metrics of a new report.
func (c collector) Collect(out chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), scrapeLimit)
	defer cancel()
	rep := c.report(ctx)
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		out <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	count := func(d *prometheus.Desc, v float64, labels ...string) {
		out <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, v, labels...)
	}
	gauge(metricInfo, 1, rep.Version, rep.Engine.Kind, rep.Firewall.Kind)
	gauge(metricReady, truth(rep.Ready))
	gauge(metricStore, truth(rep.Store.Up))
	gauge(metricSince, unixSeconds(rep.Store.Since))
	gauge(metricHeld, float64(len(rep.Store.Held)))
	gauge(metricProblems, float64(len(rep.Problems)))
	collectProblems(rep, gauge)
	gauge(metricSnapshot, rep.Store.age(time.Now()).Seconds())
	count(metricPasses, float64(rep.Passes.Total-rep.Passes.Failed), "complete")
	count(metricPasses, float64(rep.Passes.Failed), "incomplete")
	for part, n := range rep.Passes.Changes {
		count(metricChanges, float64(n), part)
	}
	for _, g := range rep.Firewall.Clear {
		count(metricGuard, float64(g.Packets), g.Family, g.Direction)
	}
	count(metricReplaced, float64(rep.Engine.Replaced))
	for reason, n := range rep.Engine.Drops {
		count(metricDrops, float64(n), reason)
	}
	count(metricLooks, float64(rep.Wire.Samples), "true")
	count(metricLooks, float64(rep.Wire.Unproven), "false")
	count(metricClear, float64(rep.Wire.Clear))
	collectProbes(rep.Probes, count)
	collectPeers(rep, c.peers, gauge, count)
}

// fresh is how long a WireGuard session lasts without another handshake
// (REJECT_AFTER_TIME, WireGuard white paper section 6.1).
const fresh = 180 * time.Second

// collectPeers sends the totals of all peers, and the series of the first of them by name: ten thousand
// peers would have 30,000 series in each node, and 300 million in the cluster.
func collectPeers(rep Report, most int, gauge, count func(*prometheus.Desc, float64, ...string)) {
	connected := 0
	var sent, received int64
	for i, p := range rep.Peers {
		sent, received = sent+p.Sent, received+p.Received
		if !p.Handshake.IsZero() && time.Since(p.Handshake) < fresh {
			connected++
		}
		if i >= most {
			continue
		}
		count(metricSent, float64(p.Sent), rep.Interface, p.PublicKey, p.Node)
		count(metricReceived, float64(p.Received), rep.Interface, p.PublicKey, p.Node)
		gauge(metricShake, unixSeconds(p.Handshake), rep.Interface, p.PublicKey, p.Node)
		collectPaths(p, gauge)
	}
	gauge(metricUnlisted, float64(max(len(rep.Peers)-most, 0)))
	gauge(metricSentAll, float64(sent))
	gauge(metricHeardAll, float64(received))
	gauge(metricPeers, float64(connected), "connected")
	gauge(metricPeers, float64(len(rep.Peers)-connected), "idle")
}

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

func unixSeconds(t time.Time) float64 {
	if t.IsZero() {
		return 0
	}
	return float64(t.UnixMilli()) / 1000
}
