package main

import (
	"context"
	"fmt"
	"os"
	"sync"
	"syscall"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"golang.org/x/sync/errgroup"
)

// The herd is many nodes in this program. A node of a cluster of 10,000 needs some megabytes for
// the leases, and 10,000 of them do not fit into a machine; so the herd is clusters of clusterSize
// nodes in a single etcd: the connections, streams and requests are those of a cluster of all.
const clusterSize = 100

func clusterPrefix(i int) string { return fmt.Sprintf("/herd/%d", i/clusterSize) }

// herd lets n nodes lose etcd for a while, twice: once the watches can be resumed, and once the
// history was compacted meanwhile, so that every node has to list. It prints when they are back, and
// what that cost etcd.
func herd(ctx context.Context, program string, n int, outage time.Duration) error {
	if err := raiseLimit(); err != nil {
		return err
	}
	s, err := newServer(program)
	if err != nil {
		return err
	}
	defer s.close()
	if err := s.start(ctx); err != nil {
		return err
	}
	nodes, err := gather(ctx, s, n)
	defer func() {
		var group errgroup.Group
		group.SetLimit(64)
		for _, m := range nodes {
			if m != nil {
				group.Go(func() error { m.close(); return nil })
			}
		}
		_ = group.Wait()
	}()
	if err != nil {
		return err
	}
	for _, compact := range []bool{false, true} {
		if err := lose(ctx, s, nodes, outage, compact); err != nil {
			return err
		}
	}
	return nil
}

// raiseLimit allows as many descriptors as this process may have, for itself and for etcd.
func raiseLimit() error {
	var l syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &l); err != nil {
		return err
	}
	l.Cur = l.Max
	return syscall.Setrlimit(syscall.RLIMIT_NOFILE, &l)
}

// gather lets all nodes join, a few at a time, and follow.
func gather(ctx context.Context, s *server, n int) ([]*member, error) {
	client, err := s.dial()
	if err != nil {
		return nil, err
	}
	defer client.Close()
	for i := 0; i < n; i += clusterSize {
		if _, err := client.Put(ctx, clusterPrefix(i)+"/config", dualDoc); err != nil {
			return nil, err
		}
	}
	began := time.Now()
	nodes := make([]*member, n)
	group, joining := errgroup.WithContext(ctx)
	group.SetLimit(256) // etcd syncs the writes of many nodes to disk at once
	clusters := (n + clusterSize - 1) / clusterSize
	for k := range clusters * clusterSize {
		i := k%clusters*clusterSize + k/clusters // the nodes of a cluster come late after each other, and do not race
		if i >= n {
			continue
		}
		if k%1000 == 999 {
			fmt.Printf("%d nodes have joined after %.1f s\n", k, time.Since(began).Seconds())
		}
		group.Go(func() (err error) {
			if joining.Err() == nil {
				nodes[i], err = join(ctx, s.client, clusterPrefix(i), i)
			}
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return nodes, err
	}
	for _, m := range nodes {
		m.follow(ctx)
	}
	err = expect(ctx, nodes, "know all leases", func(m *member) bool { return int(m.leases.Load()) == min(n, clusterSize) })
	now := s.load()
	fmt.Printf("%d nodes in clusters of %d have joined and follow after %.1f s; etcd %.0f MB and %.1f s CPU, all nodes together %.0f MB\n",
		n, clusterSize, time.Since(began).Seconds(), now.peak, now.cpu, float64(heapInUse())/1e6)
	return nodes, err
}

// lose kills etcd, starts it again after the outage, and measures the return of the nodes: a node is
// back when it has seen a change of its cluster that was written after the outage.
func lose(ctx context.Context, s *server, nodes []*member, outage time.Duration, compact bool) error {
	lists := make([]int64, len(nodes))
	for i, m := range nodes {
		lists[i] = m.r.Status().Relists
	}
	s.kill()
	pause(ctx, outage)
	if compact {
		if err := s.compactAside(ctx); err != nil {
			return err
		}
	}
	if err := s.start(ctx); err != nil {
		return err
	}
	began := time.Now()
	marks, err := mark(ctx, s, len(nodes))
	if err != nil {
		return err
	}
	var half, nearly, end time.Duration
	for total := len(nodes); end == 0; {
		n := 0
		for i, m := range nodes {
			if m.revision.Load() >= marks[i/clusterSize] {
				n++
			}
		}
		took := time.Since(began)
		if half == 0 && n >= total/2 {
			half = took
		}
		if nearly == 0 && n >= total*99/100 {
			nearly = took
		}
		switch {
		case n == total:
			end = took
		case ctx.Err() != nil || took > 6*time.Minute:
			return fmt.Errorf("only %d of %d nodes are back after %v", n, total, took)
		default:
			pause(ctx, 100*time.Millisecond)
		}
	}
	now := s.load()
	most, all := int64(0), int64(0)
	for i, m := range nodes {
		d := m.r.Status().Relists - lists[i]
		most, all = max(most, d), all+d
	}
	kind := "watches resumed"
	if compact {
		kind = "history compacted meanwhile"
	}
	fmt.Printf("outage of %v, %s: half of the nodes are back after %.1f s, 99 %% after %.1f s, all after %.1f s\n", outage, kind, half.Seconds(), nearly.Seconds(), end.Seconds())
	fmt.Printf("  lists: %d in all, at most %d of a node; etcd at its largest %.0f MB, %.1f s CPU; each node: %s\n",
		all, most, now.peak, now.cpu, now.per(load{}, float64(len(nodes))))
	return nil
}

// mark writes a change into every cluster and returns its revision by cluster: a reservation, as an
// administrator makes.
func mark(ctx context.Context, s *server, n int) ([]int64, error) {
	client, err := s.dial()
	if err != nil {
		return nil, err
	}
	defer client.Close()
	var mu sync.Mutex // guards marks
	marks := make([]int64, (n+clusterSize-1)/clusterSize)
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(8)
	for i := range marks {
		group.Go(func() error {
			key := fmt.Sprintf("%s/subnets/10.255.%d.0-24", clusterPrefix(i*clusterSize), time.Now().UnixNano()%256)
			put := func() (*clientv3.PutResponse, error) {
				ctx, stop := context.WithTimeout(ctx, 20*time.Second)
				defer stop()
				return client.Put(ctx, key, fmt.Sprintf(`{"PublicIP":"192.0.2.1","BackendType":"none","mark":%d}`, time.Now().UnixNano()))
			}
			resp, err := put()
			for err != nil && ctx.Err() == nil { // etcd has the herd to serve
				resp, err = put()
			}
			if err != nil {
				return err
			}
			mu.Lock()
			defer mu.Unlock()
			marks[i] = resp.Header.Revision
			return nil
		})
	}
	return marks, group.Wait()
}

// compactAside starts etcd at another port, writes and compacts its history, and ends it.
func (s *server) compactAside(ctx context.Context) error {
	other, err := newServer(s.program)
	if err != nil {
		return err
	}
	_ = os.RemoveAll(other.dir)
	other.dir = s.dir
	defer other.kill()
	if err := other.start(ctx); err != nil {
		return err
	}
	client, err := other.dial()
	if err != nil {
		return err
	}
	defer client.Close()
	var rev int64
	for i := range 10 {
		resp, err := client.Put(ctx, "/aside", fmt.Sprint(i))
		if err != nil {
			return err
		}
		rev = resp.Header.Revision
	}
	_, err = client.Compact(ctx, rev)
	return err
}
