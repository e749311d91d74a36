package firewall

import (
	"context"
	"sync"

	"github.com/rs/zerolog"

	"github.com/loden-net/loden/config/diff"
	"github.com/loden-net/loden/config/opt"
)

// Fake is a packet filter in memory, for tests of programs that use a Firewall. The Firewall over it
// makes the same changes in the same order and with the same texts as over a kernel. Its methods are
// safe for concurrent use.
type Fake struct {
	mu       sync.Mutex // guards the fields below
	held     [2]map[string]desired
	refused  [2]Refused
	fault    error
	problems []Problem
	changed  chan struct{} // closed and replaced whenever the rules change
}

// NewFake returns a Firewall and the packet filter in memory that it acts on.
func NewFake(log zerolog.Logger) (*Firewall, *Fake) {
	fake := &Fake{changed: make(chan struct{})}
	for _, f := range opt.Families() {
		fake.held[f] = map[string]desired{}
	}
	return &Firewall{log: log, kind: "fake", reason: "this is a test", chosen: fakeDriver{fake}}, fake
}

// Flush removes every rule, as `nft flush ruleset` does, and notifies the watchers.
func (f *Fake) Flush() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, family := range opt.Families() {
		f.held[family] = map[string]desired{}
	}
	f.announceLocked()
}

// Fail makes every later comparison and change end with err, until it is called with nil.
func (f *Fake) Fail(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.fault = err
}

// Obstruct sets the problems that the Firewall returns from now on, and notifies the watchers.
func (f *Fake) Obstruct(problems ...Problem) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.problems = problems
	f.announceLocked()
}

// Refuse adds packets to the counters of a family's guard.
func (f *Fake) Refuse(family opt.Family, in, out uint64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.refused[family].In += in
	f.refused[family].Out += out
}

// Empty reports whether the packet filter holds no rule.
func (f *Fake) Empty() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, family := range opt.Families() {
		for _, d := range f.held[family] {
			if !d.empty() {
				return false
			}
		}
	}
	return true
}

// Holds reports whether the packet filter holds exactly the rules of a configuration.
func (f *Fake) Holds(want Config) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, family := range opt.Families() {
		d := want.desired(family)
		for _, part := range parts() {
			if f.held[family][part].only(part).sum() != d.only(part).sum() {
				return false
			}
		}
	}
	return true
}

func (f *Fake) announceLocked() {
	close(f.changed)
	f.changed = make(chan struct{})
}

// fakeDriver is the driver of a Fake.
type fakeDriver struct{ *Fake }

func (fakeDriver) name() string { return "fake" }

func (fakeDriver) ready(opt.Family) error { return nil }

func (fakeDriver) randomFully(opt.Family) bool { return true }

func (d fakeDriver) changes(_ context.Context, f opt.Family, want desired) ([]diff.Change, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.fault != nil {
		return nil, d.fault
	}
	var changes []diff.Change
	for _, part := range parts() {
		held, want := d.held[f][part], want.only(part)
		c, ok := observed{
			family: f, part: part, previous: held.scope(part), current: want.scope(part),
			inSync: held.sum() == want.sum(),
		}.change(func(context.Context) error { return d.set(f, part, want) })
		if ok {
			changes = append(changes, c)
		}
	}
	return changes, nil
}

// set makes a part of a family as desired.
func (d fakeDriver) set(f opt.Family, part string, want desired) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.fault != nil {
		return d.fault
	}
	d.held[f][part] = want
	d.announceLocked()
	return nil
}

func (d fakeDriver) refused(_ context.Context, f opt.Family) (in, out uint64, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.Fake.refused[f].In, d.Fake.refused[f].Out, d.fault
}

func (d fakeDriver) problemsOf() ([]Problem, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.problems, d.fault
}

func (d fakeDriver) watch(ctx context.Context, notify func()) error {
	d.mu.Lock()
	changed := d.changed
	d.mu.Unlock()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
		}
		d.mu.Lock()
		changed = d.changed
		d.mu.Unlock()
		notify()
	}
}
