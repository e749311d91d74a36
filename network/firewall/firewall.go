// Package firewall owns what packets may do on this node: the masquerade of what leaves
// the overlay, the forward rules, and the guard that keeps overlay addresses off the
// uplinks in plaintext. Rules are data, made by pure functions; two back-ends, iptables
// and nftables, list what is there and return the changes that make it so. It knows
// nothing of leases, WireGuard or etcd.
//
//	Config ──► rule (pure lists) ──► iptables │ nftables ──► kernel
//	                                     netfilter: lists and watches without a process
package firewall

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/rs/zerolog"

	"github.com/loden-net/loden/config/diff"
	"github.com/loden-net/loden/config/opt"
	"github.com/loden-net/loden/network/firewall/rule"
)

// The rule types, under the names that callers use.
type (
	// Scope is what the rules of one family are made from.
	Scope = rule.Scope
	// Mark is a packet mark with its mask.
	Mark = rule.Mark
	// Prefixes is a comparable set of prefixes.
	Prefixes = rule.Prefixes
	// Names is a comparable set of interface names.
	Names = rule.Names
)

// Kind is a back-end.
type Kind string

// The back-ends.
const (
	IPTables Kind = "iptables"
	NFTables Kind = "nftables"
)

// engine lists and changes the rules of one back-end.
type engine interface {
	name() string
	// ready reports a missing tool, with the remedy.
	ready(f opt.Family) error
	// randomFully reports whether fully random source ports are known.
	randomFully(f opt.Family) bool
	// changes compares one family with a wish. A wish for nothing, where nothing of ours
	// is, starts no process.
	changes(ctx context.Context, f opt.Family, w wish) ([]diff.Change, error)
	// refused sums what the guard refused, arriving and leaving.
	refused(ctx context.Context, f opt.Family) (in, out uint64, err error)
	// held returns the scope at a place, as far as it can be read from the kernel.
	held(ctx context.Context, f opt.Family, p rule.Place) (opt.Option[Scope], error)
}

// Firewall makes the kernel's rules those of a Config. Its methods are safe for
// concurrent use, and act in the network namespace of the calling thread.
type Firewall struct {
	log    zerolog.Logger
	why    string
	kind   Kind
	chosen engine
	others []remains // of back-ends that may hold rules from before

	mu sync.Mutex // one comparison or change at a time
}

// Kind returns the back-end in use: "iptables" or "nftables".
func (f *Firewall) Kind() Kind { return f.kind }

// Name returns the back-end with its variant, for a reader: "iptables (nft)".
func (f *Firewall) Name() string { return f.chosen.name() }

// Why says in a few words why this back-end was chosen.
func (f *Firewall) Why() string { return f.why }

// Changes lists what the kernel holds, compares it with want and returns the named changes
// that make it so: what is added comes first, and the guard before the masquerade; what
// is deleted comes last, the guard at the very end. Running them and calling Changes again
// gives an empty list. The zero Config wants nothing of ours. Every family is compared
// even if another could not be; errors are joined.
func (f *Firewall) Changes(ctx context.Context, want Config) ([]diff.Change, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	var ours, theirs []diff.Change
	var errs []error
	for _, family := range opt.Families() {
		changes, err := f.familyChanges(ctx, family, want)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		ours = append(ours, changes...)
		for _, other := range f.others {
			changes, err := other.changes(family, want.wants(family))
			if err != nil {
				// What is left behind by a back-end that cannot be run does no harm
				// that is worth stopping for (flannel issue 2305).
				f.log.Warn().Err(err).Str("backend", other.name).Msg("old rules not cleaned up")
				continue
			}
			theirs = append(theirs, changes...)
		}
	}
	return f.guarded(append(order(ours), theirs...)), errors.Join(errs...)
}

// guarded lets the changes run one at a time.
func (f *Firewall) guarded(changes []diff.Change) []diff.Change {
	for i := range changes {
		run := changes[i].Run
		changes[i].Run = func(ctx context.Context) error {
			f.mu.Lock()
			defer f.mu.Unlock()
			return run(ctx)
		}
	}
	return changes
}

// familyChanges compares one family with the chosen back-end.
func (f *Firewall) familyChanges(ctx context.Context, family opt.Family, want Config) ([]diff.Change, error) {
	if err := want.check(family); err != nil {
		return nil, err
	}
	if want.wants(family) {
		if err := f.chosen.ready(family); err != nil {
			return nil, err
		}
		if m, ok := want.Masq.Of(family).Get(); ok && m.RandomFully && !f.chosen.randomFully(family) {
			m.RandomFully = false
			want.Masq = want.Masq.With(family, m)
		}
	}
	changes, err := f.chosen.changes(ctx, family, want.wish(family))
	if err != nil {
		return nil, fmt.Errorf("compare %s rules: %w", family, err)
	}
	return changes, nil
}

// order puts additions before deletions, and the guard outermost.
func order(changes []diff.Change) []diff.Change {
	var out []diff.Change
	pick := func(del bool, part string) {
		for _, c := range changes {
			if (c.Verb == verbDelete) == del && c.Part == part {
				out = append(out, c)
			}
		}
	}
	pick(false, partGuard)
	pick(false, partMasq)
	pick(true, partMasq)
	pick(true, partGuard)
	return out
}

// Previous returns the scopes that the kernel's masquerade rules were made from, by
// whichever run of whichever version: nothing where there are none or they cannot be read.
func (f *Firewall) Previous(ctx context.Context) (opt.Dual[Scope], error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	var held opt.Dual[Scope]
	for _, family := range opt.Families() {
		scope, err := f.chosen.held(ctx, family, rule.Postrouting)
		if err != nil {
			return held, err
		}
		if s, ok := scope.Get(); ok {
			held = held.With(family, s)
		}
	}
	return held, nil
}

// Refused counts packets that the guard refused.
type Refused struct {
	In  uint64 `json:"in"`  // arriving
	Out uint64 `json:"out"` // leaving
}

// Counters returns what the guard refused, per family; a family without a guard has none.
// A count may start again from zero when the rules change.
func (f *Firewall) Counters(ctx context.Context, want Config) (opt.Dual[Refused], error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	var counters opt.Dual[Refused]
	for family := range want.Guard.Scopes.All() {
		if want.Guard.Mode.off() {
			continue
		}
		in, out, err := f.chosen.refused(ctx, family)
		if err != nil {
			return counters, fmt.Errorf("read %s guard counters: %w", family, err)
		}
		counters = counters.With(family, Refused{In: in, Out: out})
	}
	return counters, nil
}
