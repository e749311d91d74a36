package node

import (
	"maps"
	"math"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/loden-net/loden/config/opt"
	"github.com/loden-net/loden/network"
	"github.com/loden-net/loden/network/node/history"
)

func TestHistogramsCountPassesAndRoundTrips(t *testing.T) {
	h := newHistograms()
	h.passed(network.Status{Took: 3 * time.Millisecond})
	probe := func(rtt float64) opt.Dual[history.Probe] {
		return opt.Dual[history.Probe]{V6: opt.Some(history.Probe{RTT50: rtt})}
	}
	h.sampled([]history.Sample{{Paths: probe(0.0003)}, {Paths: probe(math.NaN())}, {}})
	registry := prometheus.NewRegistry()
	registry.MustRegister(h.collectors()...)
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]uint64{}
	for _, f := range families {
		for _, m := range f.Metric {
			name := f.GetName()
			for _, l := range m.Label {
				name += " " + l.GetValue()
			}
			got[name] = m.Histogram.GetSampleCount()
		}
	}
	want := map[string]uint64{"loden_pass_duration_seconds": 1, "loden_path_rtt_seconds ipv4": 0, "loden_path_rtt_seconds ipv6": 1}
	if !maps.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}
