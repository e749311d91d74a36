package node

import (
	"strings"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/loden-net/loden/config/opt"
	"github.com/loden-net/loden/network"
	"github.com/loden-net/loden/network/node/history"
)

// histograms are the distributions that no single report can tell.
type histograms struct {
	pass prometheus.Histogram
	rtt  *prometheus.HistogramVec
}

func newHistograms() histograms {
	return histograms{
		pass: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "loden_pass_duration_seconds", Help: "Length of the passes of the reconciler.",
			Buckets: prometheus.ExponentialBuckets(0.001, 2, 14), // 1 ms to 8 s
		}),
		rtt: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "loden_path_rtt_seconds", Help: "Median round trip of each path to a peer, at each sample (10 s).",
			Buckets: prometheus.ExponentialBuckets(0.0001, 2, 14), // 0.1 ms to 0.8 s
		}, []string{"family"}),
	}
}

// collectors returns the histograms for a registry.
func (h histograms) collectors() []prometheus.Collector { return []prometheus.Collector{h.pass, h.rtt} }

// passed counts a pass.
func (h histograms) passed(s network.Status) { h.pass.Observe(s.Took.Seconds()) }

// sampled counts the round trips of a sample; a path without a round trip is left out.
func (h histograms) sampled(samples []history.Sample) {
	var families opt.Dual[prometheus.Observer]
	for _, f := range opt.Families() {
		families = families.With(f, h.rtt.WithLabelValues(strings.ToLower(f.String())))
	}
	for _, s := range samples {
		for f, p := range s.Paths.All() {
			if o, ok := families.Of(f).Get(); ok && p.RTT50 > 0 { // false for NaN
				o.Observe(p.RTT50)
			}
		}
	}
}
