// Package etcd owns the store of leases: it reads all leases, follows their changes, and
// claims, keeps and gives back this node's own lease. It knows nothing of WireGuard or of
// the kernel.
//
// Under the prefix:
//
//	config                              the network document, as flannel has it
//	subnets/10.5.1.0-24&fd00:0:0:1::-64 a lease, in flannel's form (subnet.FormatKey)
//	guards/10.5.1.0-24                  owner key: the name of the node that holds this subnet
//	guards/fd00:0:0:1::-64              the same for IPv6
//	nodes/worker-1                      which lease the node has, and its public key
//
// A lease is unique in each family because its owner keys are compared and written in the
// transaction that writes the lease. Owner keys live where flannel's watch does not see
// them. All keys of a node hang on an etcd lease, which KeepAlive renews: that writes no
// key and wakes no watcher.
//
// A node gets its lease in three steps, and loses a race without harm:
//
//	survey                 decide                      commit
//	read the node's keys   pure: which subnets, and    a transaction: written if the
//	and all leases         which transaction           store is as the survey found it
//	   ^                                                  |
//	   +---- the store changed meanwhile: survey again <--+
package etcd

import (
	"context"
	"errors"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"
	"google.golang.org/grpc"

	"github.com/loden-net/loden/subnet"
)

// Registry is the leases of a cluster in etcd. It is safe for concurrent use. Its methods
// that follow the store, and those for administrators, stand in watch.go, document.go and
// admin.go; those that claim a lease in acquire.go.
type Registry struct {
	*client
	keys  layout
	log   zerolog.Logger
	pacer pacer
	held  atomic.Bool // whether Acquire has succeeded

	mu      sync.Mutex             // guards the fields below
	orphans map[ownerKey]time.Time // owner keys without a lease, and when they were first seen
}

// Open prepares a registry. It reads the TLS files, but does not need etcd to be there:
// the first request dials. Close it after use.
func Open(ctx context.Context, opts Options, log zerolog.Logger) (*Registry, error) {
	opts = opts.filled()
	if len(opts.Endpoints) == 0 {
		return nil, errors.New("open etcd: no endpoint: give --etcd-endpoints")
	}
	conf, err := opts.clientConfig()
	if err != nil {
		return nil, err
	}
	conf.Context = context.WithoutCancel(ctx) // Close ends it; a registry outlives the start-up that opens it
	c := &client{opts: opts, config: conf, health: health{since: time.Now()}, connections: newConnections(conf.DialKeepAliveTimeout)}
	if opts.HostAddresses != nil {
		c.connections.hostAddresses = opts.HostAddresses
	}
	if proxyHint(opts.Endpoints, http.ProxyFromEnvironment) == "" { // a dialer of our own would pass the proxy by
		c.config.DialOptions = append(c.config.DialOptions, grpc.WithContextDialer(c.connections.dial))
	}
	return &Registry{client: c, keys: layout{opts.Prefix}, log: log}, nil
}

// Close ends every request and watch. It may be called more than once.
func (r *Registry) Close() error { return r.close() }

// Status returns how etcd is doing. It does not ask etcd.
func (r *Registry) Status() Status { return r.health.status() }

// Snapshot lists all leases once.
func (r *Registry) Snapshot(ctx context.Context) (subnet.Snapshot, error) {
	v, err := r.list(ctx)
	if err != nil {
		return subnet.Snapshot{}, err
	}
	return v.snapshot(), nil
}

// list reads the branch of the leases.
func (r *Registry) list(ctx context.Context) (*view, error) {
	r.setEndpoints(r.opts.Endpoints)
	v := newView(r.keys.leases())
	if err := r.pages(ctx, "list leases", v.branch, 0, v.fill); err != nil {
		return nil, err
	}
	v.filled()
	r.health.listed(v.revision)
	return v, nil
}
