package etcd

import (
	"context"
	"errors"
	"fmt"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/loden-net/loden/config"
	"github.com/loden-net/loden/subnet"
)

// Document is the network document as it stands in the store.
type Document struct {
	Data     []byte         // as written
	Network  config.Network // parsed; the zero Network when the text is not valid
	Revision int64          // etcd revision of its last change
}

// Network returns the cluster's network. Errors: ErrNoNetwork, ErrUnavailable, or the fault
// of the document.
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
	err = r.do(ctx, "get network document", func(ctx context.Context, etcd *clientv3.Client) error {
		resp, err := etcd.Get(ctx, r.keys.config())
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
// once. The error is ctx's.
func (r *Registry) WatchNetwork(ctx context.Context, emit func(Document, error)) error {
	attempts := backoff{}
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
			attempts.pause(ctx)
			continue
		}
		if d.Revision != known || told != "" {
			known, told = d.Revision, ""
			emit(d, err)
		}
		if r.awaitChange(ctx, at) {
			attempts = backoff{}
		} else {
			attempts.pause(ctx)
		}
	}
	return ctx.Err()
}

// awaitChange returns when the document may have changed since revision at: at an event, or
// after Probe. It returns false when the watch could not be kept.
func (r *Registry) awaitChange(ctx context.Context, at int64) bool {
	ctx, cancel := context.WithTimeout(clientv3.WithRequireLeader(ctx), jitter(r.opts.Probe))
	defer cancel()
	etcd, err := r.dial()
	if err != nil {
		return false
	}
	select {
	case <-ctx.Done():
		return true
	case resp, ok := <-etcd.Watch(ctx, r.keys.config(), clientv3.WithRev(at+1)):
		if err := resp.Err(); err != nil {
			_ = r.failed(ctx, "watch network document", err) // the request that follows reports the fault
			return false
		}
		return ok
	}
}

// Moves tells PutNetwork how to act when living leases do not fit the new document, so that
// their nodes would get other subnets and running pods would lose their addresses. The zero
// value is RefuseMoves.
type Moves int

// The two policies.
const (
	RefuseMoves Moves = iota // PutNetwork fails with ErrWouldMove and writes no document
	AllowMoves               // PutNetwork writes the document; the nodes move
)

// PutNetwork writes the network document. It refuses a document that is wrong, and, unless
// moves is AllowMoves, a document that living leases do not fit; the leases that would move
// are returned in both cases. A family that leases lack is no reason to refuse: each node
// adds its half. The document is written in a transaction: only if neither the document nor
// a lease has changed since the check.
func (r *Registry) PutNetwork(ctx context.Context, data []byte, moves Moves) ([]subnet.Lease, error) {
	n, err := config.ParseNetwork(data)
	if err != nil {
		return nil, fmt.Errorf("read network document: %w", err)
	}
	for range maxTries {
		moved, written, err := r.putNetwork(ctx, n, data, moves)
		if written || err != nil {
			return moved, err
		}
	}
	return nil, fmt.Errorf("put network document: the leases changed %d times between check and write: try again", maxTries)
}

// putNetwork checks the leases and writes the document, unless a lease or the document
// changes in between; then written is false.
func (r *Registry) putNetwork(ctx context.Context, n config.Network, data []byte, moves Moves) (moved []subnet.Lease, written bool, err error) {
	s, err := r.Snapshot(ctx)
	if err != nil {
		return nil, false, err
	}
	moved = Misfits(n, s.Leases.Slice())
	if len(moved) > 0 && moves != AllowMoves {
		return moved, false, fmt.Errorf("put network document: %w: %d nodes would get other subnets: give --force to do so", ErrWouldMove, len(moved))
	}
	t := transaction{what: "put network document", puts: []put{{r.keys.config(), string(data)}}}
	if moves != AllowMoves {
		t.conditions = []condition{{key: r.keys.config(), kind: unchanged, rev: s.Revision}, {key: r.keys.leases(), kind: unchanged, rev: s.Revision}}
	}
	resp, err := r.commit(ctx, t, forGood)
	if err != nil {
		return moved, false, err
	}
	return moved, resp.Succeeded, nil
}

// Misfits returns the leases that hold a subnet outside of n's ranges.
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
