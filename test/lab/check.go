package lab

import (
	"context"
	"fmt"
	"net/netip"
	"time"

	"github.com/loden-net/loden/config/opt"
)

// Path is the finding about traffic between two pods in a family.
type Path struct {
	From      string        `json:"from"` // pod
	To        string        `json:"to"`
	FromNode  string        `json:"fromNode"`
	ToNode    string        `json:"toNode"`
	Family    string        `json:"family"`
	Latency   time.Duration `json:"latencyNs"`         // of the fastest of a few echoes
	Local     bool          `json:"local"`             // both pods on the same node: no tunnel in between
	Encrypted bool          `json:"encrypted"`         // it crossed the underlay in the tunnel and nowhere in clear
	Problem   string        `json:"problem,omitempty"` // why there is no answer
}

// Exit is the finding about traffic from a pod to the outside.
type Exit struct {
	From    string        `json:"from"`
	Node    string        `json:"node"`
	Family  string        `json:"family"`
	SeenAs  netip.Addr    `json:"seenAs"` // the address the outside saw
	Latency time.Duration `json:"latencyNs"`
	Problem string        `json:"problem,omitempty"`
}

// Verdict is the result of Check.
type Verdict struct {
	OK       bool         `json:"ok"`
	Paths    []Path       `json:"paths"`
	Exits    []Exit       `json:"exits"`
	Underlay map[Kind]int `json:"underlay"` // frames seen
	Internet map[Kind]int `json:"internet"`
	Problems []string     `json:"problems"` // empty when OK
}

// A check of a small lab measures each path by echoes, and the check of a large lab by a single echo.
const (
	smallEchoes = 3
	echoSize    = 128 // bytes of an IP packet
)

// checksAtOnce is how many pairs of nodes are checked side by side: a pair waits for packets most of
// the time.
const checksAtOnce = 16

// pathLimit bounds the wait for a path: WireGuard repeats a handshake every 5 s.
const pathLimit = 30 * time.Second

// Check sends traffic over the paths between the nodes, many pairs of nodes side by side, and looks at
// the wires meanwhile. In a small lab every pod asks every other pod; in a large lab every node
// asks every other node by a pod of each, and every pod takes part. Every pod asks the outside.
func (l *Lab) Check(ctx context.Context) Verdict {
	c := &check{lab: l, echoes: smallEchoes}
	if len(l.Nodes) > smallLab {
		c.echoes = 1
	}
	c.plan()
	v := Verdict{Paths: c.paths, Exits: c.exits}
	v.Problems = append(c.run(ctx), v.pathProblems()...)
	v.Problems = append(v.Problems, l.wireProblems(ctx)...)
	v.Underlay, v.Internet = l.Wire.Counts(), l.Uplink.Counts()
	v.OK = len(v.Problems) == 0 && len(v.Paths) > 0
	return v
}

// checkExit asks the outside for a pod's address as the outside sees it.
func (l *Lab) checkExit(ctx context.Context, pod *Pod, f opt.Family) Exit {
	ctx, stop := context.WithTimeout(ctx, pathLimit)
	defer stop()
	exit := Exit{From: pod.Name, Node: pod.Node.Name, Family: f.String()}
	seen, took, err := l.SeenAs(ctx, pod, f)
	exit.SeenAs, exit.Latency = seen, took
	want, _ := pod.Node.Internet.Of(f).Get() // nodes have both families there
	switch {
	case err != nil:
		exit.Problem = err.Error()
	case seen != want:
		exit.Problem = fmt.Sprintf("seen as %s, not as its node's %s", seen, want)
	}
	return exit
}

// pathProblems lists the problems of paths and exits.
func (v Verdict) pathProblems() []string {
	var out []string
	for _, p := range v.Paths {
		switch {
		case p.Problem != "":
			out = append(out, fmt.Sprintf("%s to %s, %s: %s", p.From, p.To, p.Family, p.Problem))
		case !p.Local && !p.Encrypted:
			out = append(out, fmt.Sprintf("%s to %s, %s: not in the tunnel", p.From, p.To, p.Family))
		}
	}
	for _, e := range v.Exits {
		if e.Problem != "" {
			out = append(out, fmt.Sprintf("%s to outside, %s: %s", e.From, e.Family, e.Problem))
		}
	}
	return out
}

// wireProblems lists the frames on the wires that should not have been there.
func (l *Lab) wireProblems(ctx context.Context) []string {
	ctx, stop := context.WithTimeout(ctx, pathLimit)
	defer stop()
	var out []string
	for name, w := range map[string]*Wire{"underlay": l.Wire, "internet": l.Uplink} {
		if err := w.Sync(ctx); err != nil {
			out = append(out, name+": "+err.Error())
		}
		for _, p := range w.Problems() {
			out = append(out, name+": "+p)
		}
	}
	return out
}
