// Package networktest owns the fakes of the Reconciler's seams: a part and a host without a
// kernel. It knows the interfaces of package network and no rule about the desired state of a host.
package networktest

import (
	"context"
	"sync"
	"time"

	"github.com/loden-net/loden/config/diff"
	"github.com/loden-net/loden/network"
)

// Part is a fake part: an object in memory that should equal a string that the desired
// state is rendered to. Its methods are safe for concurrent use.
type Part struct {
	name   string
	want   func(network.State) string
	record *Record

	mu      sync.Mutex
	have    string
	listErr error
	runErr  error
	delay   time.Duration
	lists   int
}

// Record is the order in which the changes of several parts ran.
type Record struct {
	mu      sync.Mutex
	entries []string
}

func (r *Record) add(entry string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.entries = append(r.entries, entry)
}

// Take returns the entries, as "part: verb object", and forgets them.
func (r *Record) Take() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := r.entries
	r.entries = nil
	return out
}

// NewPart returns an empty part. want renders the desired state; "" means that the part
// should be empty. record may be nil.
func NewPart(name string, record *Record, want func(network.State) string) *Part {
	if record == nil {
		record = &Record{}
	}
	return &Part{name: name, record: record, want: want}
}

// Part returns the part as the Reconciler takes it.
func (p *Part) Part() network.Part { return network.Part{Name: p.name, Changes: p.changes} }

// Following returns the part as a part that depends on leases.
func (p *Part) Following() network.Part {
	return network.Part{Name: p.name, Changes: p.changes, Follow: func(ctx context.Context, _, to network.State) ([]diff.Change, error) {
		return p.compare(ctx, to)
	}}
}

// Readiness returns the part as a readiness marker.
func (p *Part) Readiness() network.Part {
	return network.Part{Name: p.name, Changes: p.changes, Readiness: true}
}

func (p *Part) changes(ctx context.Context, want network.State) ([]diff.Change, error) {
	p.mu.Lock()
	p.lists++
	p.mu.Unlock()
	return p.compare(ctx, want)
}

// compare returns the changes without counting a list.
func (p *Part) compare(ctx context.Context, want network.State) ([]diff.Change, error) {
	p.mu.Lock()
	delay := p.delay
	p.mu.Unlock()
	if delay > 0 {
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(delay):
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	target := p.want(want)
	switch {
	case p.listErr != nil:
		return nil, p.listErr
	case target == p.have:
		return nil, nil
	}
	verb := "set"
	if target == "" {
		verb = "delete"
	}
	c := diff.Change{Verb: verb, Object: target}
	c.Run = func(context.Context) error {
		p.mu.Lock()
		defer p.mu.Unlock()
		if p.runErr != nil {
			return p.runErr
		}
		p.have = target
		p.record.add(p.name + ": " + verb + " " + target)
		return nil
	}
	return []diff.Change{c}, nil
}

// Have returns the object that the part holds; "" when it holds none.
func (p *Part) Have() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.have
}

// Lists returns how often the part was asked for its changes.
func (p *Part) Lists() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.lists
}

// Spoil changes the object behind the Reconciler's back.
func (p *Part) Spoil(have string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.have = have
}

// Fail makes listing and running fail from now on; nil makes them work again.
func (p *Part) Fail(list, run error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.listErr, p.runErr = list, run
}

// Delay makes every list take that long from now on.
func (p *Part) Delay(d time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.delay = d
}

// Host is a fake host: a state to observe. The zero Host has no network. Its methods
// are safe for concurrent use.
type Host struct {
	mu       sync.Mutex
	state    network.HostState
	err      error
	observed int
	expired  int
}

// Set makes state the observed state, or err the result of every observation.
func (h *Host) Set(state network.HostState, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.state, h.err = state, err
}

// Observe implements the Reconciler's seam.
func (h *Host) Observe(network.Inputs) (network.HostState, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.observed++
	return h.state, h.err
}

// Expire implements the Reconciler's seam.
func (h *Host) Expire() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.expired++
}

// Observed returns how often the host was observed, and how often a change made the
// observation old.
func (h *Host) Observed() (observed, expired int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.observed, h.expired
}
