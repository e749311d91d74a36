package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/netip"
	"os"
	"runtime/metrics"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/flannel-io/flannel/pkg/ip"
	flease "github.com/flannel-io/flannel/pkg/lease"
	fetcd "github.com/flannel-io/flannel/pkg/subnet/etcd"
	clientv3 "go.etcd.io/etcd/client/v3"
	"k8s.io/klog/v2"

	"github.com/loden-net/loden/test/bench/proc"
)

// manager is flannel's etcd manager, in a process of its own.
type manager struct{}

func (manager) name() string { return "flannel's manager" }

// measure runs the phases that the manager has: start, idle, joins, burst.
func (m manager) measure(ctx context.Context, o options, leases int, v figures) error {
	b, err := newBed(ctx, o)
	if err != nil {
		return err
	}
	defer b.close()
	granted, err := b.client.Grant(ctx, 24*3600)
	if err != nil {
		return err
	}
	op := func(i int) (clientv3.Op, error) { return flannelOp(i, granted.ID) }
	if err := seed(ctx, b.client, leases, op); err != nil {
		return err
	}
	f := &follower{waiting: map[string]time.Time{}, all: make(chan struct{}, 1)}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	cmd := b.node.Command(context.WithoutCancel(ctx), self, "flannel", storeURL, storePrefix)
	out, in, err := os.Pipe()
	if err != nil {
		return err
	}
	cmd.Stdout = in
	began := time.Now()
	_, err = b.start(cmd, "flannel.log")
	_ = in.Close() // the follower has its own
	if err != nil {
		return err
	}
	b.cleanup = append(b.cleanup, func() { _ = out.Close() })
	go f.read(out, leases)
	select {
	case <-f.all:
	case <-time.After(o.limit):
		return fmt.Errorf("the manager does not list all leases: %s", b.tail("flannel.log"))
	case <-ctx.Done():
		return ctx.Err()
	}
	v["start s"] = time.Since(began).Seconds()
	return f.phases(ctx, o, cmd.Process.Pid, &joiner{client: b.client, op: op, next: leases}, v)
}

// follower reads the keys that the manager's process prints.
type follower struct {
	all chan struct{} // has a value when all leases of the start are known

	mu      sync.Mutex // guards all below
	waiting map[string]time.Time
	took    []time.Duration
	bytes   float64 // that the manager's process has allocated so far
}

// read notes the time of each line. Every line has the IPv4 subnet of a lease that became known, and
// the bytes that the manager's process has allocated.
func (f *follower) read(from io.Reader, leases int) {
	known := 0
	for lines := bufio.NewScanner(from); lines.Scan(); {
		now := time.Now()
		if known++; known == leases {
			f.all <- struct{}{}
		}
		subnet, allocated, _ := strings.Cut(lines.Text(), " ")
		f.mu.Lock()
		f.bytes, _ = strconv.ParseFloat(allocated, 64)
		if since, ok := f.waiting[subnet]; ok {
			f.took = append(f.took, now.Sub(since))
			delete(f.waiting, subnet)
		}
		f.mu.Unlock()
	}
}

func (f *follower) expect(i int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.waiting[cluster{}.subnet(i).String()] = time.Now()
}

// finish waits until every expected lease is known, as prober.finish does.
func (f *follower) finish(ctx context.Context, limit time.Duration) ([]time.Duration, int) {
	p := &prober{waiting: map[netip.Addr]awaited{}}
	_ = eventually(ctx, limit, func() error {
		f.mu.Lock()
		defer f.mu.Unlock()
		if len(f.waiting) > 0 {
			return fmt.Errorf("%d leases are not known", len(f.waiting))
		}
		return nil
	})
	f.mu.Lock()
	defer f.mu.Unlock()
	p.took = f.took
	missing := len(f.waiting)
	f.took = nil
	clear(f.waiting)
	took, _ := p.finish(ctx, 0)
	return took, missing
}

// allocated returns the bytes that the manager's process had allocated at its last line.
func (f *follower) allocated() float64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.bytes
}

func (f *follower) phases(ctx context.Context, o options, pid int, j *joiner, v figures) error {
	quiet(ctx, o.limit, pid)
	v["RSS daemon MB"] = proc.RSS(pid)
	if o.idle > 0 {
		before := proc.Ticks(pid)
		wait(ctx, o.idle)
		v["idle CPU ticks"] = proc.Ticks(pid) - before
	}
	before, allocated := proc.Ticks(pid), f.allocated()
	if err := j.paced(ctx, o.joins, o.rate, f.expect); err != nil {
		return err
	}
	took, missing := f.finish(ctx, o.limit)
	v["join p50 ms"], v["join p99 ms"], v["join missing"] = quantile(took, .5), quantile(took, .99), float64(missing)
	after := quiet(ctx, o.limit, pid)
	v["CPU ms/join"] = (after[0] - before) * 1000 / proc.TicksPerSecond / float64(o.joins)
	v["allocated KB/join"] = (f.allocated() - allocated) / 1024 / float64(o.joins)
	if o.burst == 0 {
		return nil
	}
	before = proc.Ticks(pid)
	for i := range o.burst {
		f.expect(j.next + i)
	}
	if err := j.burst(ctx, o.burst); err != nil {
		return err
	}
	took, missing = f.finish(ctx, o.limit)
	v["burst p50 ms"], v["burst settled s"], v["burst missing"] = quantile(took, .5), quantile(took, 1)/1000, float64(missing)
	v["burst CPU s"] = (quiet(ctx, o.limit, pid)[0] - before) / proc.TicksPerSecond
	return nil
}

// flannelOp writes lease i as flannel's WireGuard backend does.
func flannelOp(i int, granted clientv3.LeaseID) (clientv3.Op, error) {
	l := cluster{}.lease(i)
	public, err := ip.ParseIP4(endpoint(i).String())
	if err != nil {
		return clientv3.Op{}, err
	}
	data, err := json.Marshal(map[string]any{"PublicKey": l.Key.String(), "Port": port})
	if err != nil {
		return clientv3.Op{}, err
	}
	value, err := json.Marshal(&flease.LeaseAttrs{PublicIP: public, BackendType: "wireguard", BackendData: data, BackendV6Data: data})
	if err != nil {
		return clientv3.Op{}, err
	}
	v4, _ := l.Subnets.V4.Get()
	v6, _ := l.Subnets.V6.Get()
	leaf := strings.ReplaceAll(v4.String(), "/", "-") + "&" + strings.ReplaceAll(v6.String(), "/", "-")
	return clientv3.OpPut(storePrefix+"/subnets/"+leaf, string(value), clientv3.WithLease(granted)), nil
}

// followFlannel runs flannel's manager in this process, prints the IPv4 subnet of each lease that
// becomes known, and keeps the leases in a map.
func followFlannel(ctx context.Context, url, prefix string) error {
	klog.LogToStderr(false)
	klog.SetOutput(io.Discard)
	m, err := fetcd.NewLocalManager(ctx, &fetcd.EtcdConfig{Endpoints: []string{url}, Prefix: prefix}, ip.IP4Net{}, ip.IP6Net{}, 60)
	if err != nil {
		return err
	}
	results := make(chan []flease.LeaseWatchResult)
	done := make(chan error, 1)
	go func() { done <- m.WatchLeases(ctx, results) }()
	keep := map[string]flease.Lease{}
	out := bufio.NewWriter(os.Stdout)
	allocated := []metrics.Sample{{Name: "/gc/heap/allocs:bytes"}}
	add := func(l flease.Lease) {
		if _, ok := keep[l.Subnet.String()]; !ok {
			fmt.Fprintln(out, l.Subnet, allocated[0].Value.Uint64())
		}
		keep[l.Subnet.String()] = l
	}
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case err := <-done:
			return err
		case batch := <-results:
			metrics.Read(allocated)
			for _, r := range batch {
				for _, l := range r.Snapshot {
					add(l)
				}
				for _, e := range r.Events {
					if e.Type == flease.EventAdded {
						add(e.Lease)
					} else {
						delete(keep, e.Lease.Subnet.String())
					}
				}
			}
			if err := out.Flush(); err != nil {
				return err
			}
		}
	}
}
