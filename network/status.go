package network

import (
	"maps"
	"slices"
	"time"

	"github.com/loden-net/loden/config/diff"
	"github.com/loden-net/loden/subnet"
)

// Status is the result of the last pass. It is never changed once published.
type Status struct {
	At       time.Time     // end of the pass
	Took     time.Duration // length of the pass
	Inputs   Inputs
	State    State // the desired state
	Problems []subnet.Problem
	Err      error             // why the pass was incomplete; nil when it was not
	Complete bool              // some pass since the start was complete: the data path stood
	Passes   uint64            // since the start
	Failures uint64            // passes that were incomplete
	Made     []diff.Change     // the changes that the last pass made
	Changes  map[string]uint64 // changes made since the start, by part
}

// Status returns the result of the last pass; false before the first pass. It never blocks.
func (r *Reconciler) Status() (Status, bool) {
	s := r.status.Load()
	if s == nil {
		return Status{}, false
	}
	return *s, true
}

// publish makes a new Status from the last Status and this pass.
func (r *Reconciler) publish(in Inputs, want State, problems []subnet.Problem, changes []diff.Change, err error, started time.Time) {
	last, _ := r.Status()
	s := Status{
		At: time.Now(), Took: time.Since(started), Inputs: in, State: want, Problems: problems, Err: err,
		Complete: last.Complete || err == nil, Passes: last.Passes + 1, Failures: last.Failures,
		Made: changes, Changes: maps.Clone(last.Changes),
	}
	if err != nil {
		s.Failures++
	}
	if s.Changes == nil {
		s.Changes = map[string]uint64{}
	}
	for _, c := range changes {
		s.Changes[c.Part]++
	}
	r.logProblems(last.Problems, problems)
	r.status.Store(&s)
	r.passed(s)
}

// logProblems logs the problems that appeared and the problems that are solved.
func (r *Reconciler) logProblems(before, now []subnet.Problem) {
	if slices.Equal(before, now) {
		return
	}
	appeared, gone := diff.Sets(before, now)
	for _, p := range appeared {
		r.log.Warn().Str("object", p.Object).Str("reason", p.Reason).Msg("problem")
	}
	for _, p := range gone {
		r.log.Info().Str("object", p.Object).Str("reason", p.Reason).Msg("problem solved")
	}
}
