package lab

import (
	"context"
	"fmt"
	"net/netip"

	"golang.org/x/sync/errgroup"

	"github.com/loden-net/loden/config/opt"
	"github.com/loden-net/loden/test/sandbox"
)

// check is a run of Lab.Check. Paths and exits are planned first, in the order of the nodes; each
// is then filled by a single goroutine.
type check struct {
	lab    *Lab
	echoes int // that measure a path, after the echo that may wait for a handshake
	paths  []Path
	exits  []Exit
	routes []route // of paths, by index
	asks   []voice // of exits, by index
	pairs  []pair
}

// route is what a path leads over.
type route struct {
	from, to *Pod
	family   opt.Family
}

// pair is two nodes, or a node with itself: its paths share the tunnel's counter of frames and are
// checked one after the other.
type pair struct {
	a, b   *Node
	paths  []int
	before int // frames of the tunnel between the nodes before the check
}

// plan lists all paths and exits.
func (c *check) plan() {
	index := map[[2]*Node]int{} // of pairs
	for _, from := range c.lab.Nodes {
		for _, to := range c.lab.Nodes {
			key := [2]*Node{from, to}
			if to.number < from.number {
				key = [2]*Node{to, from}
			}
			at, ok := index[key]
			if !ok {
				at = len(c.pairs)
				index[key], c.pairs = at, append(c.pairs, pair{a: key[0], b: key[1]})
			}
			for _, r := range c.lab.routes(from, to) {
				c.pairs[at].paths = append(c.pairs[at].paths, len(c.paths))
				c.routes = append(c.routes, r)
				c.paths = append(c.paths, Path{
					From: r.from.Name, To: r.to.Name, FromNode: from.Name, ToNode: to.Name, Family: r.family.String(), Local: from == to,
				})
			}
		}
		for _, pod := range from.Pods {
			for _, f := range c.lab.Families.List() {
				c.asks = append(c.asks, voice{pod, f})
				c.exits = append(c.exits, Exit{})
			}
		}
	}
}

// routes returns the routes from a node's pods to a node's pods that are checked: all in a small lab,
// and one for each family in a large lab.
func (l *Lab) routes(from, to *Node) (out []route) {
	if len(l.Nodes) > smallLab {
		return l.turns(from, to)
	}
	for _, a := range from.Pods {
		for _, b := range to.Pods {
			for _, f := range l.Families.List() {
				if a != b {
					out = append(out, route{a, b, f})
				}
			}
		}
	}
	return out
}

// turns returns a route for each family from a pod of a node to a pod of a node. The pods take turns,
// so that every pod is at an end of some route.
func (l *Lab) turns(from, to *Node) (out []route) {
	if len(from.Pods) == 0 || len(to.Pods) == 0 {
		return nil
	}
	a, b := from.Pods[to.number%len(from.Pods)], to.Pods[from.number%len(to.Pods)]
	if from == to {
		a, b = from.Pods[0], from.Pods[len(from.Pods)-1]
	}
	if a == b {
		return nil
	}
	for _, f := range l.Families.List() {
		out = append(out, route{a, b, f})
	}
	return out
}

// run checks everything and returns the problems of the check itself.
func (c *check) run(ctx context.Context) []string {
	all, err := c.lab.newEchoers()
	defer func() { _ = all.close() }()
	if err != nil {
		return []string{err.Error()}
	}
	if err := c.sync(ctx); err != nil {
		return []string{"underlay: " + err.Error()}
	}
	leaked := c.lab.Wire.leaks()
	for i := range c.pairs {
		c.pairs[i].before = c.lab.tunnelled(c.pairs[i].a, c.pairs[i].b)
	}
	var group errgroup.Group
	group.SetLimit(checksAtOnce)
	for _, p := range c.pairs {
		group.Go(func() error {
			for _, at := range p.paths {
				c.measure(ctx, all, at)
			}
			return nil
		})
	}
	for i, ask := range c.asks {
		group.Go(func() error {
			c.exits[i] = c.lab.checkExit(ctx, ask.pod, ask.family)
			return nil
		})
	}
	_ = group.Wait() // the functions keep their errors in paths and exits
	if err := c.sync(ctx); err != nil {
		return []string{"underlay: " + err.Error()}
	}
	c.judge(leaked)
	return nil
}

// sync waits until every frame sent so far has been counted.
func (c *check) sync(ctx context.Context) error {
	ctx, stop := context.WithTimeout(ctx, pathLimit)
	defer stop()
	return c.lab.Wire.Sync(ctx)
}

// measure sends the echoes of a path.
func (c *check) measure(ctx context.Context, all *echoers, at int) {
	ctx, stop := context.WithTimeout(ctx, pathLimit)
	defer stop()
	r, path := c.routes[at], &c.paths[at]
	to, ok := r.to.Addrs.Of(r.family).Get()
	if !ok {
		path.Problem = fmt.Sprintf("%s has no %s address", r.to.Name, r.family)
		return
	}
	e := all.of[voice{r.from, r.family}]
	if _, err := e.until(ctx, to); err != nil { // the first may wait for a handshake
		path.Problem = err.Error()
		return
	}
	for range c.echoes {
		took, err := e.once(ctx, to, pathLimit)
		if err != nil {
			path.Problem = fmt.Sprintf("ping %s from %s: %v", to, r.from.Name, err)
			return
		}
		if path.Latency == 0 || took < path.Latency {
			path.Latency = took
		}
	}
}

// judge says of each path whether it crossed the underlay in the tunnel: no frame between its
// addresses was in clear, no frame in clear has other addresses, and the tunnel between the nodes
// carried a frame at least for each echo and each answer.
func (c *check) judge(before leaks) {
	after := c.lab.Wire.leaks()
	for _, p := range c.pairs {
		sealed, answered := c.lab.tunnelled(p.a, p.b)-p.before, 0
		for _, at := range p.paths {
			path, ends := &c.paths[at], c.routes[at].ends()
			path.Encrypted = path.Problem == "" && !path.Local && after.between(ends) == before.between(ends) && after.foreign == before.foreign
			if path.Encrypted {
				answered++
			}
		}
		for _, at := range p.paths {
			c.paths[at].Encrypted = c.paths[at].Encrypted && sealed >= 2*(c.echoes+1)*answered
		}
	}
}

// ends returns the addresses of a route.
func (r route) ends() [2]netip.Addr {
	a, _ := r.from.Addrs.Of(r.family).Get()
	b, _ := r.to.Addrs.Of(r.family).Get()
	return [2]netip.Addr{a, b}
}

// leaks counts the frames in clear on a wire.
type leaks struct {
	pods    map[[2]netip.Addr]int // with overlay addresses, by sender and receiver
	foreign int                   // other frames with the marker of pod traffic
}

// add counts a frame in clear.
func (l *leaks) add(p sandbox.Packet) {
	if isOverlay(p.Src) && isOverlay(p.Dst) {
		if l.pods == nil {
			l.pods = map[[2]netip.Addr]int{}
		}
		l.pods[[2]netip.Addr{p.Src, p.Dst}]++
	} else {
		l.foreign++
	}
}

// between returns the frames in clear between two addresses, both ways.
func (l leaks) between(ends [2]netip.Addr) int {
	return l.pods[ends] + l.pods[[2]netip.Addr{ends[1], ends[0]}]
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
