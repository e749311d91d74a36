package etcd

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"golang.org/x/sync/errgroup"

	"github.com/loden-net/loden/config"
	"github.com/loden-net/loden/config/opt"
	"github.com/loden-net/loden/subnet"
)

// Entry is a lease, or a reservation that waits for its node, for people to look at.
type Entry struct {
	Lease subnet.Lease
	TTL   opt.Option[time.Duration] // what is left of it; none for a reservation
}

// Leases returns everything under the leases branch, oldest first, and what there is no
// lease. It asks for each lease's time to live, one request each: it is for people, not
// for the daemon.
func (r *Registry) Leases(ctx context.Context) ([]Entry, []subnet.Problem, error) {
	v, ids, err := r.listWithIDs(ctx)
	if err != nil {
		return nil, nil, err
	}
	var entries []Entry
	var leases []clientv3.LeaseID
	for leaf, rec := range v.entries {
		if rec.problem == "" {
			entries = append(entries, Entry{Lease: rec.lease})
			leases = append(leases, ids[leaf])
		}
	}
	ttls, err := r.ttls(ctx, leases)
	if err != nil {
		return nil, nil, err
	}
	for i := range entries {
		entries[i].TTL = ttls[i]
	}
	slices.SortFunc(entries, func(a, b Entry) int { return subnet.Older(a.Lease, b.Lease) })
	return entries, v.snapshot().Problems, nil
}

// ttls asks what is left of each etcd lease.
func (r *Registry) ttls(ctx context.Context, ids []clientv3.LeaseID) ([]opt.Option[time.Duration], error) {
	out := make([]opt.Option[time.Duration], len(ids))
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(32)
	for i, id := range ids {
		if id == 0 {
			continue
		}
		g.Go(func() error {
			return r.do(ctx, "read time to live", func(ctx context.Context, c *clientv3.Client) error {
				resp, err := c.TimeToLive(ctx, id)
				if err == nil {
					out[i] = opt.Some(time.Duration(max(resp.TTL, 0)) * time.Second)
				}
				return err
			})
		})
	}
	return out, g.Wait()
}

// Release removes the lease of a node by its name, or any lease by its key form (for those
// that flannel wrote, which have no name). A reservation stays, waiting for its node. The
// error is ErrNoLease when there is nothing to release. A node that is alive claims its
// subnets again at once.
func (r *Registry) Release(ctx context.Context, name string) error {
	return r.release(ctx, name, (*Claim).leave)
}

// Unreserve is Release for a reservation, which it removes as well.
func (r *Registry) Unreserve(ctx context.Context, name string) error {
	return r.release(ctx, name, (*Claim).drop)
}

func (r *Registry) release(ctx context.Context, name string, how func(*Claim, context.Context) error) error {
	for range maxTries {
		c, err := r.find(ctx, name)
		if err != nil {
			return err
		}
		if err = how(c, ctx); !errors.Is(err, ErrLeaseLost) {
			return err
		} // it changed since it was found
	}
	return fmt.Errorf("release %q: it changes faster than it can be released", name)
}

// find returns the lease of a node as a claim that was not acquired.
func (r *Registry) find(ctx context.Context, name string) (*Claim, error) {
	a := attempt{r: r, want: subnet.Lease{Node: name}}
	if _, err := subnet.ParseKey(name); err == nil {
		a.byKey = name
	}
	if err := a.look(ctx); err != nil {
		return nil, err
	}
	own, ok := a.own.Get()
	if !ok {
		return nil, fmt.Errorf("release %q: %w: see `loden lease list`", name, ErrNoLease)
	}
	if a.byKey != "" && own.lease.Node != "" {
		return r.find(ctx, own.lease.Node)
	}
	for g := range a.seen {
		own.mine = append(own.mine, g)
	}
	if a.nodeMod != 0 {
		own.lease.Node = name
		own.mine = append(own.mine, r.keys.node(name))
	}
	return &Claim{r: r, store: own}, nil
}

// Reserve sets subnets aside for a node, for good: no time to live ends it. Families not
// given are allocated. A node that is running keeps running; it must hold these subnets or
// none. The lease as reserved is returned.
func (r *Registry) Reserve(ctx context.Context, n config.Network, name string, want opt.Dual[netip.Prefix]) (subnet.Lease, error) {
	if !config.ValidName(name) {
		return subnet.Lease{}, fmt.Errorf("reserve: node name %q: give a name of letters, digits, '.', '-' and '_'", name)
	}
	for f, p := range want.All() {
		if rng, ok := n.Ranges.Of(f).Get(); !ok || !rng.Contains(p) {
			return subnet.Lease{}, fmt.Errorf("reserve %s: it is no subnet of the network", p)
		}
	}
	a := attempt{r: r, network: n, want: subnet.Lease{Node: name}, prefer: want}
	for try := range maxTries {
		if err := a.look(ctx); err != nil {
			return subnet.Lease{}, err
		}
		h, err := a.reservation(want, try)
		if err != nil {
			return subnet.Lease{}, err
		}
		c, err := a.write(ctx, h)
		if err == nil {
			return c.Lease(), nil
		}
		if !errors.Is(err, errRace) {
			return subnet.Lease{}, err
		}
	}
	return subnet.Lease{}, fmt.Errorf("reserve for %q: lost %d races", name, maxTries)
}

// reservation returns what to write.
func (a *attempt) reservation(want opt.Dual[netip.Prefix], try int) (held, error) {
	subnets, err := a.choose(try)
	if err != nil {
		return held{}, fmt.Errorf("reserve: %w", err)
	}
	own, has := a.own.Get()
	for f, p := range want.All() {
		if subnets.Of(f) == opt.Some(p) {
			continue
		}
		if has {
			return held{}, fmt.Errorf("reserve %s: node %q holds %s: release that first", p, a.want.Node, own.leaf)
		}
		return held{}, fmt.Errorf("reserve %s: it is taken: see `loden lease list`", p)
	}
	h := held{leaf: subnet.FormatKey(subnets), lease: a.want}
	if has {
		h.lease = own.lease
		h.lease.Node = a.want.Node
	}
	h.lease.Subnets, h.lease.Reserved = subnets, true
	return h, nil
}

// listWithIDs is list, and the etcd lease of each entry.
func (r *Registry) listWithIDs(ctx context.Context) (*view, map[string]clientv3.LeaseID, error) {
	v := newView(r.keys.leases())
	ids := map[string]clientv3.LeaseID{}
	err := r.do(ctx, "list leases", func(ctx context.Context, c *clientv3.Client) error {
		resp, err := c.Get(ctx, v.branch, clientv3.WithPrefix())
		if err != nil {
			return err
		}
		v.fill(resp)
		for _, kv := range resp.Kvs {
			ids[strings.TrimPrefix(string(kv.Key), v.branch)] = clientv3.LeaseID(kv.Lease)
		}
		return nil
	})
	return v, ids, err
}
