package network

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"

	"github.com/loden-net/loden/config/diff"
	"github.com/loden-net/loden/subnet"
)

// Part is the one shape of every subsystem: list what is, compare with want, return the
// changes. Running them and asking again gives an empty list. The zero State wants nothing.
type Part struct {
	Name    string
	Changes func(context.Context, State) ([]diff.Change, error)

	// Promise marks a part whose presence tells others that the data path is in place, so
	// it is not brought up to date after an earlier part's error.
	Promise bool
}

// Reconciler is the sole owner of what this node's kernel holds for us. Make it with New.
type Reconciler struct {
	log    zerolog.Logger
	parts  []Part // in dependency order; teardown runs them backwards
	look   func() (Outlook, error)
	wake   chan struct{} // holds at most one pending wake-up
	passed func(Status)
	status atomic.Pointer[Status]

	mu      sync.Mutex // guards what follows
	in      Inputs     // the newest that were offered
	offered bool       // a snapshot was: without one "no peers" would mean "not known yet"
}

// Kick asks for another pass. It never blocks; kicks during a pass cost one more pass.
func (r *Reconciler) Kick() {
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// Offer hands over the newest snapshot of all leases. It never blocks; a snapshot that was
// not used yet is dropped for the newer one, so a thousand joins during one pass cost one
// more pass.
func (r *Reconciler) Offer(s subnet.Snapshot) {
	r.Update(func(in *Inputs) { in.Leases, r.offered = s.Leases, true })
}

// Update changes the inputs and asks for a pass. set must not block.
func (r *Reconciler) Update(set func(*Inputs)) {
	r.mu.Lock()
	set(&r.in)
	r.mu.Unlock()
	r.Kick()
}

// Inputs returns the newest inputs.
func (r *Reconciler) Inputs() Inputs {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.in
}

// known returns the newest inputs, and whether they are enough for a pass.
func (r *Reconciler) known() (Inputs, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.in, r.offered && r.in.Lease.Present()
}

// The pause after a failed pass doubles from the first to the last.
const (
	firstRetry = time.Second
	lastRetry  = 30 * time.Second
)

// Run makes passes until ctx ends, and then returns nil: on every kick, after resync without
// one, and after a pause when a pass failed. What the kernel holds stays as it is at the end.
func (r *Reconciler) Run(ctx context.Context, resync time.Duration) error {
	retry := firstRetry
	for {
		next := resync
		if err := r.pass(ctx); err != nil {
			r.log.Error().Err(err).Msg("pass incomplete")
			next, retry = min(retry, resync), min(2*retry, lastRetry)
		} else {
			retry = firstRetry
		}
		timer := time.NewTimer(next)
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil
		case <-r.wake:
			timer.Stop()
		case <-timer.C:
		}
	}
}

// pass looks at the uplinks, plans and applies once, and publishes the result.
func (r *Reconciler) pass(ctx context.Context) error {
	started := time.Now()
	in, known := r.known()
	if !known { // nothing to set up yet, and nothing to be torn down
		return nil
	}
	outlook, lookErr := r.look()
	if lookErr == nil { // otherwise the last one stands
		in.Outlook = outlook
		r.mu.Lock()
		r.in.Outlook = outlook
		r.mu.Unlock()
	}
	want, problems := Plan(in)
	changes, err := r.Apply(ctx, want)
	if ctx.Err() != nil {
		return nil
	}
	err = errors.Join(lookErr, err)
	r.publish(in, want, problems, changes, err, started)
	return err
}

// Apply makes the kernel agree with want, part by part, and returns the changes that were
// made. A part that fails does not keep the others from theirs, with one exception: a
// promise is not made after an error.
func (r *Reconciler) Apply(ctx context.Context, want State) ([]diff.Change, error) {
	var done []diff.Change
	var errs []error
	for _, p := range r.order(want) {
		if ctx.Err() != nil {
			break
		}
		if p.Promise && len(errs) > 0 && want.Device.Present() {
			continue
		}
		changes, err := p.Changes(ctx, want)
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", p.Name, err))
			continue
		}
		for _, c := range changes {
			if err := c.Run(ctx); err != nil {
				errs = append(errs, fmt.Errorf("%s: %s: %w", c.Part, c.Verb, err))
				break // the next change of a part may rest on this one
			}
			r.log.Info().Str("part", c.Part).Str("verb", c.Verb).Str("object", c.Object).Msg("changed")
			done = append(done, c)
		}
	}
	return done, errors.Join(errs...)
}

// Pending returns the changes that Apply would make now, without making any. A part whose
// changes depend on an earlier part's shows what is missing from today's view.
func (r *Reconciler) Pending(ctx context.Context, want State) ([]diff.Change, error) {
	var out []diff.Change
	var errs []error
	for _, p := range r.order(want) {
		changes, err := p.Changes(ctx, want)
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", p.Name, err))
		}
		out = append(out, changes...)
	}
	return out, errors.Join(errs...)
}

// order returns the parts in the order to apply want in: backwards when it is nothing.
func (r *Reconciler) order(want State) []Part {
	parts := slices.Clone(r.parts)
	if !want.Device.Present() {
		slices.Reverse(parts)
	}
	return parts
}
