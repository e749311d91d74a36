package etcd

import (
	"bytes"
	"context"
	"slices"
	"sync"

	"github.com/loden-net/loden/config"
	"github.com/loden-net/loden/config/opt"
	"github.com/loden-net/loden/config/sorted"
	"github.com/loden-net/loden/subnet"
)

// Fake is a registry in memory, for tests of programs that use a Registry: a lease stays until
// it is released or a test removes it. It needs no etcd, and waits on channels alone, so it
// works under testing/synctest. Its methods may be called from several goroutines. While it is
// in use, the exported fields may be changed by Change only. Make it with NewFake.
type Fake struct {
	mu       sync.Mutex // guards the fields below
	Away     error      // of every request, as while etcd is away or refuses everything
	ReadOnly error      // of every write, as when etcd has no space
	Document Document
	Wrong    error // of the document
	Leases   []subnet.Lease
	Updates  []subnet.Lease // the leases that were written, in order
	revision int64
	lost     chan struct{} // closed to end every claim
	changed  chan struct{} // closed and replaced at every change
}

// NewFake returns a registry with leases and without a network document.
func NewFake(leases ...subnet.Lease) *Fake {
	return &Fake{lost: make(chan struct{}), changed: make(chan struct{}), Leases: leases, revision: 1, Wrong: ErrNoNetwork}
}

// Change runs change, which may set the fields, and tells the watchers.
func (f *Fake) Change(change func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	before := f.Document.Data
	change()
	f.revision++
	if !bytes.Equal(before, f.Document.Data) {
		f.Document.Revision = f.revision
	}
	close(f.changed)
	f.changed = make(chan struct{})
}

// Lose ends the claims of the moment with ErrLeaseLost.
func (f *Fake) Lose() {
	f.Change(func() {
		close(f.lost)
		f.lost = make(chan struct{})
	})
}

// Network returns the network of Document, or the error of Away or Wrong.
func (f *Fake) Network(context.Context) (config.Network, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.Away != nil {
		return config.Network{}, f.Away
	}
	return f.Document.Network, f.Wrong
}

// Snapshot returns the leases of the moment.
func (f *Fake) Snapshot(context.Context) (subnet.Snapshot, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return subnet.Snapshot{Revision: f.revision, Leases: sorted.Of(f.Leases...)}, f.Away
}

// Watch emits the leases at once and after every change, until ctx ends.
func (f *Fake) Watch(ctx context.Context, emit func(subnet.Snapshot)) error {
	return f.follow(ctx, func() {
		if snapshot, err := f.Snapshot(ctx); err == nil {
			emit(snapshot)
		}
	})
}

// WatchNetwork emits the document, or the error, at once and after every change, until ctx
// ends.
func (f *Fake) WatchNetwork(ctx context.Context, emit func(Document, error)) error {
	return f.follow(ctx, func() {
		f.mu.Lock()
		d, err := f.Document, f.Wrong
		if f.Away != nil {
			d, err = Document{}, f.Away
		}
		f.mu.Unlock()
		emit(d, err)
	})
}

// follow calls look at once and after every change, until ctx ends.
func (f *Fake) follow(ctx context.Context, look func()) error {
	for {
		f.mu.Lock()
		changed := f.changed
		f.mu.Unlock()
		look()
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-changed:
		}
	}
}

// Status is connected unless Away is set.
func (f *Fake) Status() Status {
	f.mu.Lock()
	defer f.mu.Unlock()
	return Status{Connected: f.Away == nil, Revision: f.revision}
}

// Close has no effect.
func (f *Fake) Close() error { return nil }

// Choice returns the lease with the node's name, where its subnets fit the network, or a new
// lease.
func (f *Fake) Choice(_ context.Context, w Want) (Choice, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.Away != nil {
		return Choice{}, f.Away
	}
	lease, prefer, held := w.Lease, w.Prefer, false
	others := slices.DeleteFunc(slices.Clone(f.Leases), func(l subnet.Lease) bool {
		if l.Node == w.Lease.Node {
			lease, prefer, held = l, l.Subnets, true
		}
		return l.Node == w.Lease.Node
	})
	var err error
	lease.Subnets, err = subnet.Allocate(w.Network, w.Lease.Node+"#0", prefer, others)
	return Choice{Lease: lease, Held: held && lease.Subnets == prefer}, err
}

// Acquire writes the lease of Choice with the key and the endpoints of the caller.
func (f *Fake) Acquire(ctx context.Context, w Want) (*FakeClaim, error) {
	choice, err := f.Choice(ctx, w)
	if err != nil {
		return nil, err
	}
	lease := choice.Lease
	lease.Key, lease.Endpoints = w.Lease.Key, w.Lease.Endpoints
	c := &FakeClaim{store: f, lease: lease}
	f.mu.Lock()
	c.lost = f.lost
	f.mu.Unlock()
	if err := c.Update(ctx, lease); err != nil {
		return nil, err
	}
	return c, nil
}

// Release removes the lease of a node. It returns ErrNoLease when there is none.
func (f *Fake) Release(_ context.Context, name string) error {
	f.mu.Lock()
	away := f.Away
	f.mu.Unlock()
	if away != nil {
		return away
	}
	err := ErrNoLease
	f.Change(func() {
		f.Leases = slices.DeleteFunc(slices.Clone(f.Leases), func(l subnet.Lease) bool {
			if l.Node == name {
				err = nil
			}
			return l.Node == name
		})
	})
	return err
}

// Stored returns the lease of a node in the registry.
func (f *Fake) Stored(name string) opt.Option[subnet.Lease] {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, l := range f.Leases {
		if l.Node == name {
			return opt.Some(l)
		}
	}
	return opt.None[subnet.Lease]()
}

// FakeClaim is a lease that a node holds in a Fake.
type FakeClaim struct {
	store *Fake
	lease subnet.Lease
	lost  chan struct{}
}

// Lease returns the lease as the registry has it.
func (c *FakeClaim) Lease() subnet.Lease { return c.lease }

// Keep blocks until Lose is called, and returns ErrLeaseLost, or until ctx ends.
func (c *FakeClaim) Keep(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-c.lost:
		return ErrLeaseLost
	}
}

// Update writes the lease, or returns the error of Away or ReadOnly.
func (c *FakeClaim) Update(_ context.Context, want subnet.Lease) error {
	c.store.mu.Lock()
	refused := c.store.ReadOnly
	if c.store.Away != nil {
		refused = c.store.Away
	}
	same := slices.Contains(c.store.Leases, want)
	c.store.mu.Unlock()
	if refused != nil {
		return refused
	}
	c.lease = want
	if same {
		return nil
	}
	c.store.Change(func() {
		c.store.Updates = append(c.store.Updates, want)
		c.store.Leases = append(slices.DeleteFunc(slices.Clone(c.store.Leases), func(l subnet.Lease) bool { return l.Node == want.Node }), want)
	})
	return nil
}
