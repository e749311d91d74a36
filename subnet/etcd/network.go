package etcd

import (
	"context"
	"errors"
	"fmt"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/loden-net/loden/config"
	"github.com/loden-net/loden/subnet"
)

// Document is the network document as it stands in the store.
type Document struct {
	Data     []byte         // as written
	Network  config.Network // what it says; the zero Network when it says nothing valid
	Revision int64          // etcd revision of its last change
}

// Network returns the cluster's network. Errors: ErrNoNetwork, ErrUnavailable, or what is
// wrong with the document.
func (r *Registry) Network(ctx context.Context) (config.Network, error) {
	d, err := r.Document(ctx)
	return d.Network, err
}

// Document returns the network document with its text. Errors as for Network; when the
// document is there but wrong, Data and Revision are set all the same.
func (r *Registry) Document(ctx context.Context) (Document, error) {
	d, _, err := r.document(ctx)
	return d, err
}

// document also returns the revision that the answer is true at.
func (r *Registry) document(ctx context.Context) (d Document, at int64, err error) {
	err = r.do(ctx, "get network document", func(ctx context.Context, c *clientv3.Client) error {
		resp, err := c.Get(ctx, r.keys.config())
		if err != nil {
			return err
		}
		at = resp.Header.Revision
		if len(resp.Kvs) > 0 {
			d.Data, d.Revision = resp.Kvs[0].Value, resp.Kvs[0].ModRevision
		}
		return nil
	})
	if err != nil {
		return d, at, err
	}
	if d.Revision == 0 {
		return d, at, fmt.Errorf("get network document: %w at %s: write one with `loden network put FILE`", ErrNoNetwork, r.keys.config())
	}
	d.Network, err = config.ParseNetwork(d.Data)
	if err != nil {
		err = fmt.Errorf("read network document at %s: %w", r.keys.config(), err)
	}
	return d, at, err
}

// WatchNetwork blocks until ctx ends and calls emit with the document, or why there is
// none, at once and whenever either changes. While etcd is away it reports ErrUnavailable
// once. The error is that of ctx.
func (r *Registry) WatchNetwork(ctx context.Context, emit func(Document, error)) error {
	wait := retry{}
	told := "" // the last error's text, so that waiting is said once
	known := int64(-1)
	for ctx.Err() == nil {
		d, at, err := r.document(ctx)
		if ctx.Err() != nil {
			break
		}
		if errors.Is(err, ErrUnavailable) {
			if err.Error() != told {
				told = err.Error()
				emit(d, err)
			}
			wait.pause(ctx)
			continue
		}
		wait = retry{}
		if d.Revision != known || told != "" {
			known, told = d.Revision, ""
			emit(d, err)
		}
		r.awaitChange(ctx, at)
	}
	return ctx.Err()
}

// awaitChange returns when the document may have changed since revision at: at an event,
// when the watch breaks, or after Probe.
func (r *Registry) awaitChange(ctx context.Context, at int64) {
	ctx, cancel := context.WithTimeout(clientv3.WithRequireLeader(ctx), jitter(r.opts.Probe))
	defer cancel()
	c, err := r.dial()
	if err != nil {
		return
	}
	select {
	case <-ctx.Done():
	case <-c.Watch(ctx, r.keys.config(), clientv3.WithRev(at+1)):
	}
}

// PutNetwork writes the network document. It refuses one that is wrong, and, unless force
// is Force, one that living leases do not fit; the leases that would move are returned in
// both cases. A family that leases lack is no reason to refuse: each node adds its half.
func (r *Registry) PutNetwork(ctx context.Context, data []byte, force Force) ([]subnet.Lease, error) {
	n, err := config.ParseNetwork(data)
	if err != nil {
		return nil, fmt.Errorf("read network document: %w", err)
	}
	s, err := r.Snapshot(ctx)
	if err != nil {
		return nil, err
	}
	moved := Misfits(n, s.Leases)
	if len(moved) > 0 && force != Forced {
		return moved, fmt.Errorf("put network document: %w: %d would get other subnets: give --force to do so", ErrWouldMove, len(moved))
	}
	return moved, r.do(ctx, "put network document", func(ctx context.Context, c *clientv3.Client) error {
		_, err := c.Put(ctx, r.keys.config(), string(data))
		return err
	})
}

// Force says whether to do what a check advises against.
type Force bool

// The two answers.
const (
	Checked Force = false
	Forced  Force = true
)

// Misfits returns the leases that hold a subnet which is none of n's.
func Misfits(n config.Network, leases []subnet.Lease) []subnet.Lease {
	var out []subnet.Lease
	for _, l := range leases {
		for f, p := range l.Subnets.All() {
			if rng, ok := n.Ranges.Of(f).Get(); !ok || !rng.Contains(p) {
				out = append(out, l)
				break
			}
		}
	}
	return out
}

// Snapshot lists all leases once.
func (r *Registry) Snapshot(ctx context.Context) (subnet.Snapshot, error) {
	v, err := r.list(ctx)
	if err != nil {
		return subnet.Snapshot{}, err
	}
	return v.snapshot(), nil
}

// now is when a claim is made.
func now() int64 { return time.Now().Unix() }
