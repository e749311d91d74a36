package etcd

import (
	"context"
	"math/rand/v2"
	"time"

	"github.com/loden-net/loden/config/wait"
)

// backoff spaces attempts: 100 ms doubling to 5 s, each with jitter, so that the nodes of a
// cluster do not come back in step.
type backoff struct{ last time.Duration }

// rest starts over when the attempt that began then went well for a while.
func (b *backoff) rest(began time.Time) {
	if time.Since(began) > time.Minute {
		*b = backoff{}
	}
}

// pause waits for the next attempt or the end of ctx.
func (b *backoff) pause(ctx context.Context) {
	b.last = min(max(2*b.last, 100*time.Millisecond), 5*time.Second)
	wait.For(ctx, jitter(b.last))
}

// jitter returns 75 to 125 % of d.
func jitter(d time.Duration) time.Duration {
	return d*3/4 + rand.N(d/2+1) // spreads load; security does not rest on it
}
