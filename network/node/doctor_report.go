package node

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/loden-net/loden/network/probe"
)

// ofReport returns the findings that the report of a running node holds. It is pure.
func ofReport(rep Report) []Finding {
	out := []Finding{readiness(rep)}
	for _, p := range rep.Problems {
		out = append(out, Finding{What: "problem", State: Bad, Detail: p.Object + ": " + p.Reason})
	}
	out = append(out, engineLife(rep.Engine)...)
	out = append(out, storeState(rep.Store))
	for _, p := range rep.Peers {
		out = append(out, peerState(p)...)
	}
	return out
}

// readiness says whether pods can be attached, and the reasons when they cannot.
func readiness(rep Report) Finding {
	switch {
	case !rep.Ready:
		return Finding{What: "node", State: Bad, Detail: "not ready: " + rep.Reason}
	case rep.Reason != "":
		return Finding{What: "node", State: Bad, Detail: rep.Reason}
	}
	return Finding{What: "node", State: Good, Detail: "ready, and the last pass was complete"}
}

// engineLife judges the engine by its report.
func engineLife(e EngineReport) []Finding {
	var out []Finding
	if e.Silent {
		out = append(out, Finding{What: "engine", State: Bad, Detail: "the userspace engine runs and gives no answer, so no packet of the overlay passes",
			Remedy: "none needed: the daemon ends and replaces an engine that stays silent without using the processor; see its log"})
	}
	if e.Replaced > 0 {
		out = append(out, Finding{What: "engine", State: Warn, Detail: fmt.Sprintf("%d engines hung and were replaced since the daemon started", e.Replaced),
			Remedy: "report it with `loden doctor --bundle FILE`"})
	}
	if len(out) == 0 {
		out = append(out, Finding{What: "engine", State: Good, Detail: e.Kind + " answers"})
	}
	if len(e.Drops) > 0 {
		var parts []string
		for _, reason := range slices.Sorted(maps.Keys(e.Drops)) {
			parts = append(parts, fmt.Sprintf("%s %d", reason, e.Drops[reason]))
		}
		out = append(out, Finding{What: "engine drops", State: Good, Detail: "since it began: " + strings.Join(parts, ", ")})
	}
	return out
}

// storeState judges the watch of etcd.
func storeState(s StoreReport) Finding {
	switch {
	case len(s.Held) > 0:
		return Finding{What: "leases", State: Warn, Detail: fmt.Sprintf("%d leases vanished at once and are held as peers: %s", len(s.Held), strings.Join(s.Held, ", ")),
			Remedy: "if these nodes are gone for good: loden lease confirm; else start them"}
	case !s.Up:
		return Finding{What: "leases", State: Bad, Detail: "etcd is away, so the last known peers stand: " + s.Error, Remedy: "mend etcd; running pods keep their network meanwhile"}
	case s.Skipped > 0:
		return Finding{What: "leases", State: Warn, Detail: fmt.Sprintf("%d keys under the prefix hold no valid lease and are skipped", s.Skipped), Remedy: "look at them: loden lease list"}
	}
	return Finding{What: "leases", State: Good, Detail: fmt.Sprintf("followed, at revision %d", s.Revision)}
}

// peerState returns the findings about a peer: its paths, and the endpoint at which it is heard.
func peerState(p PeerReport) []Finding {
	what := "peer " + peerTitle(p)
	var out []Finding
	for _, path := range p.Paths {
		if path.State == probe.Up || path.State == probe.Unknown {
			continue
		}
		f := Finding{What: what, State: Bad, Detail: fmt.Sprintf("%s is %s: %s", path.Family, path.State, path.Reason), Remedy: path.Remedy}
		if path.State == probe.Degraded {
			f.State = Warn
		}
		out = append(out, f)
	}
	if f, ok := roamed(what, p); ok {
		out = append(out, f)
	}
	if len(out) == 0 {
		out = append(out, Finding{What: what, State: Good, Detail: peerDetail(p)})
	}
	return out
}

// peerDetail describes a peer without a fault.
func peerDetail(p PeerReport) string {
	text := p.State + " at " + p.Endpoint
	if p.Handshake.IsZero() {
		return text + ", no handshake yet"
	}
	return text + ", last handshake " + p.Handshake.UTC().Format(time.RFC3339)
}

// roamed says when a peer is heard at another endpoint than its lease announces: nodes that it
// does not speak to first cannot reach it.
func roamed(what string, p PeerReport) (Finding, bool) {
	if p.Handshake.IsZero() || p.Announced.IsZero() {
		return Finding{}, false
	}
	for _, e := range p.Announced.All() {
		if e.String() == p.Endpoint {
			return Finding{}, false
		}
	}
	return Finding{What: what, State: Warn, Detail: fmt.Sprintf("its lease announces %s, and it is heard at %s: nodes that it does not call first cannot reach it", endpointText(p.Announced), p.Endpoint),
		Remedy: fmt.Sprintf("on %s: give the address that others reach with --public-ip, or forward the port on its NAT", peerTitle(p))}, true
}

func peerTitle(p PeerReport) string {
	if p.Node != "" {
		return p.Node
	}
	return p.PublicKey
}
