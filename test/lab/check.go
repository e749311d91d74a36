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

// echoes is how many echoes measure a latency, and echoSize their IP packets' length.
const (
	echoes   = 3
	echoSize = 128
)

// pathLimit bounds the wait for a path: WireGuard repeats a handshake every 5 s.
const pathLimit = 30 * time.Second

// Check sends traffic over every path there is and looks at the wires meanwhile.
func (l *Lab) Check(ctx context.Context) Verdict {
	var v Verdict
	for _, from := range l.Nodes {
		for _, to := range l.Nodes {
			v.Paths = append(v.Paths, l.checkPair(ctx, from, to)...)
		}
		for _, pod := range from.Pods {
			for _, f := range l.Families.List() {
				v.Exits = append(v.Exits, l.checkExit(ctx, pod, f))
			}
		}
	}
	v.Problems = append(v.pathProblems(), l.wireProblems(ctx)...)
	v.Underlay, v.Internet = l.Wire.Counts(), l.Uplink.Counts()
	v.OK = len(v.Problems) == 0 && len(v.Paths) > 0
	return v
}

// checkPair tries every pod of a node with every pod of another node.
func (l *Lab) checkPair(ctx context.Context, from, to *Node) []Path {
	var out []Path
	for _, a := range from.Pods {
		for _, b := range to.Pods {
			if a == b {
				continue
			}
			for _, f := range l.Families.List() {
				out = append(out, l.checkPath(ctx, a, b, f))
			}
		}
	}
	return out
}

// checkPath sends echoes from one pod to another and says whether they crossed the
// underlay in the tunnel.
func (l *Lab) checkPath(ctx context.Context, a, b *Pod, f opt.Family) Path {
	ctx, stop := context.WithTimeout(ctx, pathLimit)
	defer stop()
	path := Path{
		From: a.Name, To: b.Name, FromNode: a.Node.Name, ToNode: b.Node.Name,
		Family: f.String(), Local: a.Node == b.Node,
	}
	fail := func(err error) Path {
		path.Problem = err.Error()
		return path
	}
	to, ok := b.Addrs.Of(f).Get()
	if !ok {
		return fail(fmt.Errorf("%s has no %s address", b.Name, f))
	}
	if _, err := Ping(ctx, a.Host, to, echoSize); err != nil { // the first may wait for a handshake
		return fail(err)
	}
	if err := l.Wire.Sync(ctx); err != nil {
		return fail(err)
	}
	tunnelled, leaked := l.tunnelled(a.Node, b.Node), l.Wire.Counts()[Clear]
	for range echoes {
		took, err := Ping(ctx, a.Host, to, echoSize)
		if err != nil {
			return fail(err)
		}
		if path.Latency == 0 || took < path.Latency {
			path.Latency = took
		}
	}
	if err := l.Wire.Sync(ctx); err != nil {
		return fail(err)
	}
	// Each echo and each answer is a frame at least.
	path.Encrypted = !path.Local && l.tunnelled(a.Node, b.Node)-tunnelled >= 2*echoes && l.Wire.Counts()[Clear] == leaked
	return path
}

// tunnelled counts WireGuard frames between two nodes.
func (l *Lab) tunnelled(a, b *Node) int {
	n := 0
	for f, addr := range a.Underlay.All() {
		if other, ok := b.Underlay.Of(f).Get(); ok {
			n += l.Wire.tunnelled(addr, other)
		}
	}
	return n
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
