package etcd

import (
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc"
)

// At returns r under another prefix, on the same connection. It need not be closed.
func (r *Registry) At(prefix string) (*Registry, error) {
	c, err := r.dial()
	if err != nil {
		return nil, err
	}
	opts := r.opts
	opts.Prefix = prefix
	return &Registry{opts: opts, keys: layout{prefix}, config: r.config, log: r.log, client: c}, nil
}

// Intercept puts i into the way of every request. It must come before the first one.
func (r *Registry) Intercept(i grpc.UnaryClientInterceptor) {
	r.config.DialOptions = append(r.config.DialOptions, grpc.WithChainUnaryInterceptor(i))
}

// EtcdLease returns what the claim hangs on.
func (c *Claim) EtcdLease() clientv3.LeaseID {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.store.etcdLease
}
