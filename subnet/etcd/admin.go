package etcd

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"golang.org/x/sync/errgroup"

	"github.com/loden-net/loden/config"
	"github.com/loden-net/loden/config/opt"
	"github.com/loden-net/loden/config/sorted"
	"github.com/loden-net/loden/subnet"
)

// Entry is a lease, or a reservation that waits for its node, as administrators see it.
type Entry struct {
	Lease subnet.Lease
	TTL   opt.Option[time.Duration] // time that is left; none for a reservation
}

// Leases returns all leases and reservations, oldest first, and the keys of the branch that
// are no lease. It asks for each lease's time to live, a request each: it is for people,
// not for the daemon.
func (r *Registry) Leases(ctx context.Context) ([]Entry, []subnet.Problem, error) {
	v, err := r.list(ctx)
	if err != nil {
		return nil, nil, err
	}
	var entries []Entry
	var ids []etcdID
	for l := range sorted.Of(append(v.leases.Slice(), v.waiting.Slice()...)...).All() {
		entries = append(entries, Entry{Lease: l})
		ids = append(ids, v.entries[subnet.FormatKey(l.Subnets)].id)
	}
	ttls, err := r.ttls(ctx, ids)
	if err != nil {
		return nil, nil, err
	}
	for i := range entries {
		entries[i].TTL = ttls[i]
	}
	snapshot := v.snapshot()
	owners, err := r.owners(ctx, 0)
	if err != nil {
		return nil, nil, err
	}
	leases := snapshot.Leases.Slice()
	for _, e := range entries { // reservations that wait are in no snapshot
		leases = append(leases, e.Lease)
	}
	problems := snapshot.Problems
	for _, o := range withoutLease(owners, leases) {
		problems = append(problems, o.problem(r.keys))
	}
	return entries, problems, nil
}

// ttls asks for the time that is left of each etcd lease.
func (r *Registry) ttls(ctx context.Context, ids []etcdID) ([]opt.Option[time.Duration], error) {
	out := make([]opt.Option[time.Duration], len(ids))
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(32)
	for i, id := range ids {
		if id == 0 {
			continue
		}
		g.Go(func() error {
			return r.do(ctx, "read time to live", func(ctx context.Context, etcd *clientv3.Client) error {
				resp, err := etcd.TimeToLive(ctx, id)
				if err == nil {
					out[i] = opt.Some(time.Duration(max(resp.TTL, 0)) * time.Second)
				}
				return err
			})
		})
	}
	return out, g.Wait()
}

// Release removes the lease of a node by its name, or any lease by its key form (leases
// that flannel wrote have no name), or an owner key without a lease by its subnet. A reservation stays, waiting for its node. The
// error is ErrNoLease when there is no lease to release. A node that is alive claims its
// subnets again at once.
func (r *Registry) Release(ctx context.Context, name string) error {
	return r.release(ctx, name, (*Claim).leave)
}

// Unreserve is Release for a reservation, which it removes as well.
func (r *Registry) Unreserve(ctx context.Context, name string) error {
	return r.release(ctx, name, (*Claim).drop)
}

// release finds the claim of a node and ends it with end, until it is found unchanged.
func (r *Registry) release(ctx context.Context, name string, end func(*Claim, context.Context) error) error {
	for range maxTries {
		c, err := r.find(ctx, name)
		if err != nil {
			return err
		}
		if err = end(c, ctx); !errors.Is(err, ErrLeaseLost) {
			return err
		} // it changed since it was found
	}
	return fmt.Errorf("release %q: it changes faster than it can be released", name)
}

// find returns the lease of a node as a claim that was not acquired.
func (r *Registry) find(ctx context.Context, name string) (*Claim, error) {
	form := ""
	if _, err := subnet.ParseKey(name); err == nil {
		form = name
	}
	s, err := r.survey(ctx, Want{Lease: subnet.Lease{Node: name}}, form)
	if err != nil {
		return nil, err
	}
	own, ok := s.own().Get()
	if !ok && form != "" {
		own, ok = r.orphanAt(ctx, form)
	}
	if !ok {
		return nil, fmt.Errorf("release %q: %w: see `loden lease list`", name, ErrNoLease)
	}
	if own.orphan {
		return &Claim{r: r, store: own}, nil
	}
	if form != "" && own.lease.Node != "" {
		return r.find(ctx, own.lease.Node)
	}
	own.named = slices.Sorted(maps.Keys(s.named))
	if s.node != 0 {
		own.lease.Node = name
		own.named = append(own.named, r.keys.node(name))
	}
	return &Claim{r: r, store: own}, nil
}

// orphanAt returns the owner key of a subnet that no lease has, as a lease with no key of
// its own.
func (r *Registry) orphanAt(ctx context.Context, form string) (stored, bool) {
	resp, err := r.get(ctx, "read owner key", r.keys.owners()+form)
	if err != nil || len(resp.Kvs) == 0 {
		return stored{}, false
	}
	o, ok := parseOwner(r.keys, string(resp.Kvs[0].Key), resp.Kvs[0].Value, resp.Kvs[0].ModRevision)
	return stored{form: form, orphan: true, mod: o.mod, named: []string{r.keys.owner(o.subnet)}}, ok
}

// Reserve sets subnets aside for a node, for good: no time to live ends it. Families not
// given are allocated. A node that is running keeps running; it must hold these subnets or
// none. The lease as reserved is returned.
func (r *Registry) Reserve(ctx context.Context, n config.Network, name string, want opt.Dual[netip.Prefix]) (subnet.Lease, error) {
	if err := checkName("reserve", name); err != nil {
		return subnet.Lease{}, err
	}
	for f, p := range want.All() {
		if rng, ok := n.Ranges.Of(f).Get(); !ok || !rng.Contains(p) {
			return subnet.Lease{}, fmt.Errorf("reserve %s: it is no subnet of the network", p)
		}
	}
	x := acquisition{r: r, decide: decideReservation}
	c, err := x.run(ctx, Want{Network: n, Lease: subnet.Lease{Node: name}, Prefer: want})
	if err != nil {
		return subnet.Lease{}, err
	}
	return c.Lease(), nil
}
