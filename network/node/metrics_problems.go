package node

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/loden-net/loden/network/probe"
)

var metricKinds = metric("loden_problems_by_kind", "Faults by kind: not-ready, reason, lease, etcd, held, engine, or the state of peers (peer-down, peer-one-way, peer-mtu, peer-degraded).", "kind")

// collectProblems sends the number of faults of each kind, also of the kinds without a fault:
// an alert then needs no series that appears and vanishes.
func collectProblems(rep Report, gauge func(*prometheus.Desc, float64, ...string)) {
	for kind, n := range problemKinds(rep) {
		gauge(metricKinds, float64(n), kind)
	}
}

// problemKinds counts the faults of a report by kind.
func problemKinds(rep Report) map[string]int {
	one := func(fault bool) int {
		if fault {
			return 1
		}
		return 0
	}
	kinds := map[string]int{
		"not-ready": one(!rep.Ready), "reason": one(rep.Ready && rep.Reason != ""), "lease": len(rep.Problems), "etcd": one(!rep.Store.Up),
		"held": len(rep.Store.Held), "engine": one(rep.Engine.Silent),
	}
	for _, state := range []string{probe.Down, probe.OneWay, probe.MTU, probe.Degraded} {
		kinds["peer-"+state] = 0
	}
	for _, p := range rep.Peers {
		if _, counted := kinds["peer-"+p.State]; counted {
			kinds["peer-"+p.State]++
		}
	}
	return kinds
}
