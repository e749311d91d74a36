package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"

	"github.com/flannel-io/flannel/pkg/ip"
	flease "github.com/flannel-io/flannel/pkg/lease"
	fsubnet "github.com/flannel-io/flannel/pkg/subnet"
	fetcd "github.com/flannel-io/flannel/pkg/subnet/etcd"
	clientv3 "go.etcd.io/etcd/client/v3"
	"k8s.io/klog/v2"

	"github.com/loden-net/loden/config"
)

// flannel keeps leases with flannel's own manager.
type flannel struct {
	s  *store
	at string
}

// quietFlannel drops flannel's log, a line or more per lease.
func quietFlannel() {
	klog.LogToStderr(false)
	klog.SetOutput(io.Discard)
}

func newFlannel(s *store, prefix string) flannel { return flannel{s, prefix} }

func (flannel) name() string     { return "flannel" }
func (f flannel) prefix() string { return f.at }

func (f flannel) open(ctx context.Context) (fsubnet.Manager, error) {
	return fetcd.NewLocalManager(ctx, &fetcd.EtcdConfig{Endpoints: []string{f.s.url}, Prefix: f.at}, ip.IP4Net{}, ip.IP6Net{}, 60)
}

func attrs(i int) (*flease.LeaseAttrs, error) {
	public, err := ip.ParseIP4(address(i).String())
	if err != nil {
		return nil, err
	}
	data, err := json.Marshal(map[string]any{"PublicKey": key(i).String(), "Port": 51820})
	return &flease.LeaseAttrs{PublicIP: public, BackendType: "wireguard", BackendData: data, BackendV6Data: data}, err
}

func (f flannel) join(ctx context.Context, i int) (claim, error) {
	ctx, cancel := context.WithCancel(ctx) // its client ends with the context
	defer cancel()
	m, err := f.open(ctx)
	if err != nil {
		return claim{}, err
	}
	a, err := attrs(i)
	if err != nil {
		return claim{}, err
	}
	l, err := m.AcquireLease(ctx, a)
	if err != nil {
		return claim{}, err
	}
	return claim{v4: l.Subnet.String(), v6: l.IPv6Subnet.String(), requests: -1}, nil
}

func (f flannel) follow(ctx context.Context, known func(int)) error {
	m, err := f.open(ctx)
	if err != nil {
		return err
	}
	results := make(chan []flease.LeaseWatchResult)
	done := make(chan error, 1)
	go func() { done <- m.WatchLeases(ctx, results) }()
	keep := map[string]flease.Lease{}
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case err := <-done:
			return err
		case batch := <-results:
			for _, r := range batch {
				for _, l := range r.Snapshot {
					keep[l.Subnet.String()+l.IPv6Subnet.String()] = l
				}
				for _, e := range r.Events {
					if id := e.Lease.Subnet.String() + e.Lease.IPv6Subnet.String(); e.Type == flease.EventAdded {
						keep[id] = e.Lease
					} else {
						delete(keep, id)
					}
				}
			}
			known(len(keep))
		}
	}
}

// seed writes leases as flannel does, each on an etcd lease of its own.
func (f flannel) seed(ctx context.Context, n int) error {
	network, err := config.ParseNetwork([]byte(dualDoc))
	if err != nil {
		return err
	}
	r4, _ := network.Ranges.V4.Get()
	r6, _ := network.Ranges.V6.Get()
	a4, a6 := r4.SubnetMin, r6.SubnetMin
	for i := range n {
		a, err := attrs(i)
		if err != nil {
			return err
		}
		value, err := json.Marshal(a)
		if err != nil {
			return err
		}
		granted, err := f.s.client.Grant(ctx, 3600)
		if err != nil {
			return err
		}
		leaf := fmt.Sprintf("/subnets/%s-%d&%s-%d", a4, r4.SubnetLen, a6, r6.SubnetLen)
		if _, err := f.s.client.Put(ctx, f.at+leaf, string(value), clientv3.WithLease(granted.ID)); err != nil {
			return err
		}
		a4, a6 = after(a4, r4.SubnetLen), after(a6, r6.SubnetLen)
	}
	return nil
}
