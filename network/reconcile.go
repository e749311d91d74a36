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

	"github.com/loden-net/loden/backend"
	"github.com/loden-net/loden/config/diff"
	"github.com/loden-net/loden/config/wait"
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

	planner   planner          // belongs to Run
	standing  bool             // the last pass was complete, so the next pass may follow it; belongs to Run
	obstacles []subnet.Problem // of the host, as the last whole pass found them; belongs to Run
	starting  bool             // no pass was complete yet: its changes are for the debug level; belongs to Run

	mu      sync.Mutex // guards the fields below
	in      Inputs     // the newest that were offered
	offered bool       // a snapshot was offered: without a snapshot "no peers" would mean "not known yet"
	due     work       // since the last pass
}

// work is what a pass has to look at.
type work uint8

const (
	idle   work = iota // the resync alone
	leases             // leases have changed
	whole              // the host, or another input, may have changed
)

// New returns a Reconciler that has made no pass yet. It needs no Close.
func New(o Options) *Reconciler {
	passed := o.Passed
	if passed == nil {
		passed = func(Status) {}
	}
	return &Reconciler{log: o.Log, parts: o.Parts, host: o.Host, passed: passed, wake: make(chan struct{}, 1), in: Inputs{Self: o.Self}}
}

// Kick asks for a whole pass. It never blocks; kicks during a pass cost a single further pass.
func (r *Reconciler) Kick() { r.Update(func(*Inputs) {}) }

// Offer hands over the newest snapshot of all leases. It never blocks; a snapshot that was
// not used yet is dropped for the newer one, so a thousand joins during a pass, and during the
// rest after it, cost a single further pass.
func (r *Reconciler) Offer(s subnet.Snapshot) {
	r.change(leases, func(in *Inputs) { in.Leases, r.offered = s.Leases, true })
}

// Update changes the inputs and asks for a whole pass. set must not block.
func (r *Reconciler) Update(set func(*Inputs)) { r.change(whole, set) }

// change changes the inputs and makes work due.
func (r *Reconciler) change(w work, set func(*Inputs)) {
	r.mu.Lock()
	set(&r.in)
	r.due = max(r.due, w)
	r.mu.Unlock()
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// Inputs returns the newest inputs.
func (r *Reconciler) Inputs() Inputs {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.in
}

// take returns the newest inputs, the work that is due, and whether the inputs are enough for a
// pass. The work counts as done.
func (r *Reconciler) take() (in Inputs, due work, known bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	due, r.due = r.due, idle
	return r.in, due, r.offered && r.in.Lease.Present()
}

// pending returns the work that is due.
func (r *Reconciler) pending() work {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.due
}

// The pause after a failed pass doubles from the first to the last.
const (
	firstRetry = time.Second
	lastRetry  = 30 * time.Second
)

// Run makes passes until ctx ends, and then returns nil: a whole pass on every kick, after
// resync without a whole pass, and after a pause when a pass failed; and a pass over the leases
// alone when only leases have changed. After such a pass it rests from leases for wait.Rest, so
// that a burst of joins costs a few passes. The kernel's state stays as it is at the end.
func (r *Reconciler) Run(ctx context.Context, resync time.Duration) error {
	retry := firstRetry
	var looked, rested time.Time // end of the last whole pass, and of the rest from leases
	for {
		began := time.Now()
		followed, err := r.pass(ctx)
		next := resync
		if err != nil {
			r.log.Error().Err(err).Msg("pass incomplete")
			next, retry = min(retry, resync), min(2*retry, lastRetry)
		} else {
			retry = firstRetry
		}
		now := time.Now()
		if followed {
			rested = now.Add(wait.Rest(now.Sub(began)))
		}
		if !followed || err != nil {
			looked = now
		}
		if !r.await(ctx, looked.Add(next), rested) {
			return nil
		}
	}
}

// await waits until a whole pass is due: at a time, or because it was asked for; or until leases
// have changed and the rest from them is over. It returns false when ctx ends.
func (r *Reconciler) await(ctx context.Context, resync, rested time.Time) bool {
	for {
		until := resync
		switch due := r.pending(); {
		case due == whole:
			return ctx.Err() == nil
		case due == leases && rested.Before(resync):
			until = rested
		}
		timer := time.NewTimer(time.Until(until))
		select {
		case <-ctx.Done():
			timer.Stop()
			return false
		case <-r.wake: // with more work, or with work that was looked at already
			timer.Stop()
		case <-timer.C:
			return true
		}
	}
}

// pass makes a pass over the leases alone if it can, else a whole pass, and publishes the result.
// followed says that the leases were the reason.
func (r *Reconciler) pass(ctx context.Context) (followed bool, err error) {
	in, due, known := r.take()
	if !known { // there is no state to set up yet, and none to be torn down
		return false, nil
	}
	if due == leases && r.standing {
		err = r.follow(ctx, in)
	} else {
		err = r.look(ctx, in)
	}
	r.standing = err == nil && ctx.Err() == nil && in.Removals == backend.RemoveUnwanted
	return due == leases, err
}

// look makes a whole pass: it observes the host, plans and applies once.
func (r *Reconciler) look(ctx context.Context, in Inputs) error {
	started := time.Now()
	observed, observeErr := r.host.Observe(in)
	if observeErr == nil { // otherwise the last state stands
		in.HostState = observed
		r.mu.Lock()
		r.in.HostState = observed
		r.mu.Unlock()
	}
	want, problems := r.planner.plan(in)
	last, _ := r.Status()
	r.starting = !last.Complete
	changes, err := r.Apply(ctx, want)
	if ctx.Err() != nil {
		return nil
	}
	var obstaclesErr error
	r.obstacles, obstaclesErr = r.Problems(ctx, want)
	err = errors.Join(observeErr, err, obstaclesErr)
	r.publish(in, want, append(problems, r.obstacles...), changes, err, started)
	return err
}

// follow makes a pass after changes of leases alone: it neither observes the host nor lists what
// the parts have installed, but tells each part that depends on leases what the desired state
// gains and loses. It needs a complete pass before it.
func (r *Reconciler) follow(ctx context.Context, in Inputs) error {
	started := time.Now()
	r.starting = false
	from := r.planner.state
	want, problems := r.planner.follow(in.Leases)
	var done []diff.Change
	var errs []error
	for _, p := range r.parts {
		if p.Follow == nil {
			continue
		}
		changes, err := p.Follow(ctx, from, want)
		made, err := r.runChanges(ctx, p, changes, err)
		done = append(done, made...)
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", p.Name, err))
		}
	}
	if ctx.Err() != nil {
		return nil
	}
	err := errors.Join(errs...)
	r.publish(in, want, append(problems, r.obstacles...), done, err, started)
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

// applyPart lists the changes of a part and runs them.
func (r *Reconciler) applyPart(ctx context.Context, p Part, want State) ([]diff.Change, error) {
	changes, err := p.list(ctx, want)
	return r.runChanges(ctx, p, changes, err)
}

// runChanges runs the changes of a part, also when listing them gave an error and the part could
// list only some of them. After a change that fails the rest of the part may rest on it and does
// not run, except in a part whose changes are independent.
func (r *Reconciler) runChanges(ctx context.Context, p Part, changes []diff.Change, listErr error) (done []diff.Change, err error) {
	errs := []error{listErr}
	for _, c := range changes {
		c.Part = p.Name
		r.host.Expire()
		if err := c.Run(ctx); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", c.Verb, err))
			if p.Independent {
				continue
			}
			break
		}
		r.logChange(c)
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
