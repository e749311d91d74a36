package firewall

import (
	"context"

	"github.com/loden-net/loden/config/diff"
	"github.com/loden-net/loden/config/opt"
)

// driver lists and changes the rules of an implementation of the packet filter.
type driver interface {
	name() string
	// ready reports a missing tool, with the remedy.
	ready(f opt.Family) error
	// randomFully reports whether the tools know fully random source ports.
	randomFully(f opt.Family) bool
	// changes compares the rules of one family with the desired rules. It starts no process where
	// Loden has no rules and desires none.
	changes(ctx context.Context, f opt.Family, d desired) ([]diff.Change, error)
	// refused returns the packets that the guard refused, arriving and leaving.
	refused(ctx context.Context, f opt.Family) (in, out uint64, err error)
	// watch calls notify, never concurrently, after every change of the kernel's rules that may
	// concern Loden. It blocks until ctx ends and then returns nil.
	watch(ctx context.Context, notify func()) error
}
