// Package firewall owns the packet filter rules of this node: the masquerade of packets that leave
// the overlay, the rules that accept forwarded packets of pods, and the guard that keeps overlay
// addresses off the uplinks in plaintext. Rules are data, made by pure functions. Two drivers, iptables
// and nftables, list the rules in the kernel and return the changes that make them as desired. The
// package must not know leases, WireGuard or etcd.
//
//	Config ──► rule (pure lists) ──► driver: iptables │ nftables ──► kernel
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
	// Scope holds the prefixes that the rules of a family are made from.
	Scope = rule.Scope
	// Mark is a packet mark with its mask.
	Mark = rule.Mark
)

// Kind names a driver.
type Kind string

// The drivers.
const (
	IPTables Kind = "iptables"
	NFTables Kind = "nftables"
)

// Firewall makes the kernel's rules agree with a Config. Its methods are safe for concurrent use, and
// act in the network namespace of the calling thread.
type Firewall struct {
	log       zerolog.Logger
	reason    string
	kind      Kind
	kernel    *kernel // nil over a Fake
	chosen    driver
	leftovers []leftover // of drivers that may hold rules of an earlier run

	mu sync.Mutex // serialises comparisons and changes
}

// Name returns the driver with its variant, for a reader: "iptables (nft)".
func (f *Firewall) Name() string { return f.chosen.name() }

// Reason says in a few words why this driver was chosen.
func (f *Firewall) Reason() string { return f.reason }

// Changes compares the kernel's rules with want and returns the named changes that make them agree:
// additions first, and the guard before the masquerade; deletions last, and the guard at the very end.
// After the changes have run, Changes returns an empty list. The zero Config desires no rule of
// Loden's. Every family is compared even if the comparison of another family failed; errors are joined.
func (f *Firewall) Changes(ctx context.Context, want Config) ([]diff.Change, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	var own, old []diff.Change
	var errs []error
	for _, family := range opt.Families() {
		changes, err := f.familyChanges(ctx, family, want)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		own = append(own, changes...)
		for _, l := range f.leftovers {
			changes, err := l.changes(family, !want.empty(family))
			if err != nil {
				// Rules of a driver that cannot be run do too little harm to stop for them (flannel
				// issue 2305).
				f.log.Warn().Err(err).Str("driver", l.name).Msg("old rules not cleaned up")
				continue
			}
			old = append(old, changes...)
		}
	}
	return f.locked(append(order(own), old...)), errors.Join(errs...)
}

// locked makes the changes run in sequence.
func (f *Firewall) locked(changes []diff.Change) []diff.Change {
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

// familyChanges compares a family by the chosen driver.
func (f *Firewall) familyChanges(ctx context.Context, family opt.Family, want Config) ([]diff.Change, error) {
	if err := want.check(family); err != nil {
		return nil, err
	}
	if !want.empty(family) {
		if err := f.chosen.ready(family); err != nil {
			return nil, err
		}
		if m, ok := want.Masq.Of(family).Get(); ok && m.RandomFully && !f.chosen.randomFully(family) {
			m.RandomFully = false
			want.Masq = want.Masq.With(family, m)
		}
	}
	changes, err := f.chosen.changes(ctx, family, want.desired(family))
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

// Refused counts packets that the guard refused.
type Refused struct {
	In  uint64 `json:"in"`  // arriving
	Out uint64 `json:"out"` // leaving
}

// Counters returns the packets that the guard refused, per family; a family without a guard is absent.
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

// Watch calls notify, never concurrently, when the kernel announces a change of rules that may concern
// Loden: once per transaction, however many rules the transaction touched. The changes of this process
// are among them. It blocks until ctx ends and then returns nil; every other end is an error. The
// kernel announces nftables, and with them iptables-nft. It does not announce iptables-legacy, so
// callers compare from time to time as well.
func (f *Firewall) Watch(ctx context.Context, notify func()) error {
	return f.chosen.watch(ctx, notify)
}
