// Package wait owns the two ways in which Loden's goroutines wait: for a time that ends with
// the context, and for a wake-up that is remembered until it is taken. It knows no reason for
// waiting and imports the standard library only.
package wait

import (
	"context"
	"time"
)

// For blocks for d, or until ctx ends if that is earlier. It reports whether ctx is still
// alive, so that a loop reads `for wait.For(ctx, second)`.
func For(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return ctx.Err() == nil
	case <-ctx.Done():
		return false
	}
}

// Signal is a wake-up between goroutines. Any number of Set calls before the wake-up is taken
// count as a single wake-up, so a burst of events costs one round of work. Make it with
// NewSignal; copies share the wake-up; there is no resource to close.
type Signal struct {
	pending chan struct{} // with room for a single wake-up
}

// NewSignal returns a Signal without a pending wake-up.
func NewSignal() Signal { return Signal{pending: make(chan struct{}, 1)} }

// Set makes a wake-up pending. It never blocks.
func (s Signal) Set() {
	select {
	case s.pending <- struct{}{}:
	default:
	}
}

// C returns the channel from which a select takes the pending wake-up.
func (s Signal) C() <-chan struct{} { return s.pending }

// Clear takes a pending wake-up without acting on it. It never blocks.
func (s Signal) Clear() {
	select {
	case <-s.pending:
	default:
	}
}

// On blocks until a wake-up is taken or ctx ends, and reports whether it was a wake-up.
func (s Signal) On(ctx context.Context) bool {
	select {
	case <-s.pending:
		return true
	case <-ctx.Done():
		return false
	}
}
