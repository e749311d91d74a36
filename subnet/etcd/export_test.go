package etcd

import (
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc"
)

// At returns r under another prefix, on the same connection. It need not be closed.
func (r *Registry) At(prefix string) (*Registry, error) {
	shared, err := r.dial()
	if err != nil {
		return nil, err
	}
	opts := r.opts
	opts.Prefix = prefix
	return &Registry{client: &client{opts: opts, config: r.config, etcd: shared, connections: r.connections}, keys: layout{prefix}, log: r.log}, nil
}

// Intercept puts i into the way of every request. It must come before the first request.
func (r *Registry) Intercept(i grpc.UnaryClientInterceptor) {
	r.config.DialOptions = append(r.config.DialOptions, grpc.WithChainUnaryInterceptor(i))
}

// EtcdLease returns the etcd lease that the claim hangs on.
func (c *Claim) EtcdLease() clientv3.LeaseID {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.store.id
}

// Silence switches off the log of a client that a test makes.
func Silence(c *clientv3.Config) error { return silence(&c.LogConfig) }
