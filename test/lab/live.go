package lab

import (
	"cmp"
	"context"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
)

// The pace of Live.
const (
	liveInterval = time.Second            // between rounds of echoes
	liveLimit    = 900 * time.Millisecond // for an answer
	liveAtOnce   = 200                    // echoes of a round; with more paths, the paths take turns
	downAfter    = 2                      // echoes in a row without an answer
)

// LivePath is the present state of the path between the pods of two nodes in a family.
type LivePath struct {
	From, To string // nodes
	Family   string
	Latency  time.Duration // of the last answer; 0: none yet
	Silent   int           // echoes in a row without an answer
	Since    time.Time     // of the first of them; zero when Silent is 0
	asked    int           // round of the last echo
}

// Down reports whether the path is taken as broken: two echoes in a row had no answer.
func (p LivePath) Down() bool { return p.Silent >= downAfter }

// note returns the path after an echo that was sent at sent. took 0 means no answer.
func (p LivePath) note(took time.Duration, sent time.Time) LivePath {
	if took > 0 {
		p.Latency, p.Silent, p.Since = took, 0, time.Time{}
		return p
	}
	if p.Silent++; p.Silent == 1 {
		p.Since = sent
	}
	return p
}

// Live sends echoes between the pods of every two nodes, a round each second, until ctx is done,
// and calls show after each round with the state of all paths, in the order of the nodes. show is
// called from a single goroutine and keeps no path. With more paths than echoes in a round, the
// paths whose last echo had no answer come first, then those that waited longest.
func (l *Lab) Live(ctx context.Context, show func([]LivePath)) error {
	all, err := l.newEchoers()
	defer func() { _ = all.close() }()
	if err != nil {
		return err
	}
	var routes []route
	var paths []LivePath
	for _, from := range l.Nodes {
		for _, to := range l.Nodes {
			for _, r := range l.turns(from, to) {
				if from != to {
					routes = append(routes, r)
					paths = append(paths, LivePath{From: from.Name, To: to.Name, Family: r.family.String()})
				}
			}
		}
	}
	tick := time.NewTicker(liveInterval)
	defer tick.Stop()
	for round := 1; ; round++ {
		l.ask(ctx, all, routes, paths, round)
		if ctx.Err() != nil {
			return nil
		}
		show(paths)
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// ask sends the echoes of a round and notes their answers.
func (l *Lab) ask(ctx context.Context, all *echoers, routes []route, paths []LivePath, round int) {
	var mu sync.Mutex // guards paths
	var group errgroup.Group
	for _, at := range due(paths, liveAtOnce) {
		group.Go(func() error {
			r, sent := routes[at], time.Now()
			var took time.Duration
			if to, ok := r.to.Addrs.Of(r.family).Get(); ok {
				took, _ = all.of[voice{r.from, r.family}].once(ctx, to, liveLimit) // 0 after an error: no answer
			}
			mu.Lock()
			defer mu.Unlock()
			paths[at] = paths[at].note(took, sent)
			paths[at].asked = round
			return nil
		})
	}
	_ = group.Wait() // the functions return no error
}

// due returns the indices of at most limit paths that are asked next.
func due(paths []LivePath, limit int) []int {
	order := make([]int, len(paths))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int {
		x, y := paths[a], paths[b]
		suspect := func(p LivePath) int { return min(p.Silent, downAfter) % downAfter } // 1: a second echo decides
		return cmp.Or(suspect(y)-suspect(x), x.asked-y.asked)
	})
	return order[:min(limit, len(order))]
}
