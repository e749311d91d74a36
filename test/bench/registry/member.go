package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"

	"github.com/loden-net/loden/subnet"
	"github.com/loden-net/loden/subnet/etcd"
)

// member is a node as etcd sees it: a registry that holds a lease and follows the leases.
type member struct {
	r        *etcd.Registry
	leases   atomic.Int64 // in the last snapshot
	revision atomic.Int64
	stop     context.CancelFunc
	runs     sync.WaitGroup
}

// loopback is the only address of the nodes: 10,000 registries in a program would ask the kernel
// 50,000 times a second while etcd is away.
func loopback() (map[netip.Addr]bool, error) {
	return map[netip.Addr]bool{netip.MustParseAddr("127.0.0.1"): true}, nil
}

// join opens a registry and claims the lease of node i, again until etcd has the time for it.
func join(ctx context.Context, url, prefix string, i int) (*member, error) {
	r, err := etcd.Open(ctx, etcd.Options{Endpoints: []string{url}, Prefix: prefix, HostAddresses: loopback}, zerolog.Nop())
	if err != nil {
		return nil, err
	}
	m := &member{r: r}
	n, err := r.Network(ctx)
	for errors.Is(err, etcd.ErrUnavailable) && ctx.Err() == nil {
		n, err = r.Network(ctx)
	}
	if err != nil {
		return nil, errors.Join(err, r.Close())
	}
	c, err := r.Acquire(ctx, etcd.Want{Network: n, Lease: lease(i)})
	for errors.Is(err, etcd.ErrUnavailable) && ctx.Err() == nil { // a daemon tries again too
		c, err = r.Acquire(ctx, etcd.Want{Network: n, Lease: lease(i)})
	}
	if err != nil {
		return nil, errors.Join(err, r.Close())
	}
	ctx, m.stop = context.WithCancel(ctx)
	m.runs.Go(func() { _ = c.Keep(ctx) }) // it ends with ctx
	return m, nil
}

// follow follows the leases until close.
func (m *member) follow(ctx context.Context) {
	ctx, stop := context.WithCancel(ctx)
	keep := m.stop
	m.stop = func() { keep(); stop() }
	m.runs.Go(func() {
		_ = m.r.Watch(ctx, func(s subnet.Snapshot) { // it ends with ctx
			m.leases.Store(int64(s.Leases.Len()))
			m.revision.Store(m.r.Status().Revision)
		})
	})
}

func (m *member) close() {
	m.stop()
	m.runs.Wait()
	_ = m.r.Close()
}

// until waits until cond holds for all of the members, for at most limit, and returns how many
// it holds for at the end.
func until(ctx context.Context, all []*member, limit time.Duration, cond func(*member) bool) (n int) {
	for end := time.Now().Add(limit); ; pause(ctx, 20*time.Millisecond) {
		n = 0
		for _, m := range all {
			if m != nil && cond(m) {
				n++
			}
		}
		if n == len(all) || ctx.Err() != nil || time.Now().After(end) {
			return n
		}
	}
}

// expect is until with an error when a member is missing.
func expect(ctx context.Context, all []*member, what string, cond func(*member) bool) error {
	if n := until(ctx, all, 5*time.Minute, cond); n < len(all) {
		return fmt.Errorf("%s: only %d of %d nodes", what, n, len(all))
	}
	return nil
}
