package etcd

import (
	"context"
	"sync"
	"time"

	"github.com/loden-net/loden/config/wait"
)

// Two machines that were cloned, name and key and all, take the same lease from each other for
// as long as both run. A registry cannot tell that from a node that was moved, but it need
// not cost etcd thousands of writes a second.
const (
	paceWindow = time.Minute // within which acquisitions count as a row
	paceFree   = 8           // so many of them at once, with no pause
	paceMost   = 30 * time.Second
)

// pacer spaces acquisitions of a node that follow each other.
type pacer struct {
	mu     sync.Mutex // guards the fields below
	recent map[string][]time.Time
}

// next records an acquisition and returns how long to wait before it.
func (p *pacer) next(node string, now time.Time) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.recent == nil {
		p.recent = map[string][]time.Time{}
	}
	var kept []time.Time
	for _, t := range p.recent[node] {
		if now.Sub(t) < paceWindow {
			kept = append(kept, t)
		}
	}
	p.recent[node] = append(kept, now)
	over := len(kept) - paceFree
	if over < 0 {
		return 0
	}
	return min(time.Second<<min(over, 10), paceMost)
}

// pace waits before an acquisition that follows too many acquisitions.
func (r *Registry) pace(ctx context.Context, node string) error {
	d := r.pacer.next(node, time.Now())
	if d == 0 {
		return ctx.Err()
	}
	r.log.Warn().Str("node", node).Stringer("pause", d.Round(time.Millisecond)).
		Msg("lease acquired again and again: does another machine run with this node's name and key?")
	wait.For(ctx, d)
	return ctx.Err()
}
