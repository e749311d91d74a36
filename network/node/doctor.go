package node

import (
	"context"
	"fmt"
	"time"

	"github.com/loden-net/loden/config/opt"
	"github.com/loden-net/loden/network/trace"
)

// Diagnosis is the result of Doctor: the body of `loden doctor --json`.
type Diagnosis struct {
	APIVersion int       `json:"apiVersion"`
	Version    string    `json:"version"` // of the program
	Node       string    `json:"node"`
	At         time.Time `json:"at"`
	Findings   []Finding `json:"findings"`

	Report opt.Option[Report] `json:"-"` // of the running daemon
}

// Count returns the number of findings in a state.
func (d Diagnosis) Count(s State) int {
	n := 0
	for _, f := range d.Findings {
		if f.State == s {
			n++
		}
	}
	return n
}

// Doctor examines this host as Check does, and then the running node: the daemon and its
// engine, the pods' side, the route to every peer with the real rules of the host, the paths
// to the peers and their view of this node. It makes no change. Each finding has its own time
// limit, and a fault does not hide another.
func Doctor(ctx context.Context, s Settings, o CheckOptions) Diagnosis {
	return realEnvironment().doctor(ctx, s, o, trace.Linux{})
}

func (e environment) doctor(ctx context.Context, s Settings, o CheckOptions, k trace.Kernel) Diagnosis {
	c := e.newCheck(s, o)
	defer c.host.close()
	c.run(ctx, o)
	x := &examination{check: c, kernel: k}
	x.run(ctx)
	return Diagnosis{APIVersion: apiVersion, Version: s.Version, Node: s.Name, At: time.Now(), Findings: c.findings, Report: x.report}
}

// examination adds the findings about a running node to a check.
type examination struct {
	*check
	kernel trace.Kernel
	report opt.Option[Report]
}

func (x *examination) run(ctx context.Context) {
	if rep, ok := find(ctx, x.check, "daemon", x.daemon); ok {
		x.report = opt.Some(rep)
	}
	x.findAll(ctx, "CNI", func(context.Context) []Finding { return x.cniSide() })
	x.findAll(ctx, "pods", func(context.Context) []Finding { return x.podSide() })
	rep, ok := x.report.Get()
	if !ok {
		return
	}
	x.findings = append(x.findings, ofReport(rep)...)
	x.findAll(ctx, "routes to peers", func(context.Context) []Finding { return x.routes(rep) })
	x.findAll(ctx, "peers' view", func(ctx context.Context) []Finding { return x.views(ctx, rep) })
	x.findAll(ctx, "repairs", func(ctx context.Context) []Finding {
		events, err := AskEvents(ctx, x.host.settings.RunDir)
		if err != nil {
			return []Finding{{What: "repairs", State: Unknown, Detail: oneLine(err.Error())}}
		}
		return []Finding{repairs(events, time.Now())}
	})
	x.findAll(ctx, "guard", func(ctx context.Context) []Finding { return x.guard(ctx, rep) })
}

// findAll adds the findings of fn. A function that does not return within the limit becomes a
// finding itself.
func (x *examination) findAll(ctx context.Context, what string, fn func(context.Context) []Finding) {
	ctx, cancel := context.WithTimeout(ctx, x.limit)
	defer cancel()
	done := make(chan []Finding, 1) // so that a late function does not wait for a reader
	go func() { done <- fn(ctx) }()
	select {
	case found := <-done:
		x.findings = append(x.findings, found...)
	case <-time.After(x.limit + graceTime):
		x.findings = append(x.findings, Finding{What: what, State: Unknown, Detail: fmt.Sprintf("no answer within %v", x.limit), Remedy: "give more time with --timeout"})
	}
}

// daemon asks the daemon of this node for its report. A daemon that is not ready is reported by
// ofReport.
func (x *examination) daemon(ctx context.Context) (Report, string, error) {
	rep, err := Ask(ctx, x.host.settings.RunDir)
	if err != nil {
		return rep, "", err
	}
	return rep, fmt.Sprintf("runs: loden %s, engine %s, rules by %s", rep.Version, rep.Engine.Kind, rep.Firewall.Kind), nil
}
