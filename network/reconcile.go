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

// Options are the seams of a Reconciler.
type Options struct {
	Self   Self
	Host   host         // an Observer, or networktest's fake
	Parts  []Part       // in the order of their dependencies
	Passed func(Status) // called after every pass with its result; must not block; may be nil
	Log    zerolog.Logger
}

// host is the seam to the host that the Reconciler observes.
type host interface {
	// Observe returns the state of the host. The last inputs hold the state before.
	Observe(last Inputs) (HostState, error)
	// Expire says that the host was changed since the last Observe.
	Expire()
}

// Reconciler is the sole owner of this node's state in the kernel. Make it with New.
type Reconciler struct {
	log    zerolog.Logger
	parts  []Part // in dependency order; teardown runs them backwards
	host   host
	wake   chan struct{} // holds at most a single pending wake-up
	passed func(Status)
	status atomic.Pointer[Status]

	mu      sync.Mutex // guards the fields below
	in      Inputs     // the newest that were offered
	offered bool       // a snapshot was offered: without a snapshot "no peers" would mean "not known yet"
}

// New returns a Reconciler that has made no pass yet. It needs no Close.
func New(o Options) *Reconciler {
	passed := o.Passed
	if passed == nil {
		passed = func(Status) {}
	}
	return &Reconciler{log: o.Log, parts: o.Parts, host: o.Host, passed: passed, wake: make(chan struct{}, 1), in: Inputs{Self: o.Self}}
}

// Kick asks for another pass. It never blocks; kicks during a pass cost a single further pass.
func (r *Reconciler) Kick() {
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// Offer hands over the newest snapshot of all leases. It never blocks; a snapshot that was
// not used yet is dropped for the newer one, so a thousand joins during a pass cost a single
// further pass.
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
// a kick, and after a pause when a pass failed. The kernel's state stays as it is at the end.
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

// pass observes the host, plans and applies once, and publishes the result.
func (r *Reconciler) pass(ctx context.Context) error {
	started := time.Now()
	in, known := r.known()
	if !known { // there is no state to set up yet, and none to be torn down
		return nil
	}
	observed, observeErr := r.host.Observe(in)
	if observeErr == nil { // otherwise the last state stands
		in.HostState = observed
		r.mu.Lock()
		r.in.HostState = observed
		r.mu.Unlock()
	}
	want, problems := Plan(in)
	changes, err := r.Apply(ctx, want)
	if ctx.Err() != nil {
		return nil
	}
	obstacles, problemsErr := r.Problems(ctx, want)
	problems = append(problems, obstacles...)
	err = errors.Join(observeErr, err, problemsErr)
	r.publish(in, want, problems, changes, err, started)
	return err
}

// Problems returns the faults of the host that keep want from having its effect, as the parts see them.
func (r *Reconciler) Problems(ctx context.Context, want State) ([]subnet.Problem, error) {
	var problems []subnet.Problem
	var errs []error
	for _, p := range r.parts {
		if p.Problems == nil {
			continue
		}
		found, err := p.Problems(ctx, want)
		problems = append(problems, found...)
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", p.Name, err))
		}
	}
	return problems, errors.Join(errs...)
}

// Apply makes the kernel agree with want, part by part, and returns the changes that were
// made. The error of a part does not keep the other parts from theirs, except a readiness
// marker, which is not written after an error.
func (r *Reconciler) Apply(ctx context.Context, want State) ([]diff.Change, error) {
	var done []diff.Change
	var errs []error
	for _, p := range r.order(want) {
		if ctx.Err() != nil {
			break
		}
		if p.Readiness && len(errs) > 0 && want.Device.Present() {
			continue
		}
		made, err := r.applyPart(ctx, p, want)
		done = append(done, made...)
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", p.Name, err))
		}
	}
	return done, errors.Join(errs...)
}

// applyPart runs the changes of a part, also when the part could list only some of them.
// After a change that fails the rest of the part may rest on it and does not run, except in
// a part whose changes are independent.
func (r *Reconciler) applyPart(ctx context.Context, p Part, want State) (done []diff.Change, err error) {
	changes, err := p.list(ctx, want)
	errs := []error{err}
	for _, c := range changes {
		r.host.Expire()
		if err := c.Run(ctx); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", c.Verb, err))
			if p.Independent {
				continue
			}
			break
		}
		r.log.Info().Str("part", c.Part).Str("verb", c.Verb).Str("object", c.Object).Msg("changed")
		done = append(done, c)
	}
	return done, errors.Join(errs...)
}

// Pending returns the changes that Apply would make now, and makes none. A part that depends
// on an earlier part compares with the host as it is now.
func (r *Reconciler) Pending(ctx context.Context, want State) ([]diff.Change, error) {
	var out []diff.Change
	var errs []error
	for _, p := range r.order(want) {
		changes, err := p.list(ctx, want)
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", p.Name, err))
		}
		out = append(out, changes...)
	}
	return out, errors.Join(errs...)
}

// order returns the parts in the order in which they are applied: backwards for a teardown.
func (r *Reconciler) order(want State) []Part {
	parts := slices.Clone(r.parts)
	if !want.Device.Present() {
		slices.Reverse(parts)
	}
	return parts
}
