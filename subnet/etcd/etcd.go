// Package etcd owns the store of leases: it reads them whole, follows them, and claims,
// keeps and gives back this node's own. It knows nothing of WireGuard or of the kernel.
//
// Under the prefix:
//
//	config                              the network document, as flannel has it
//	subnets/10.5.1.0-24&fd00:0:0:1::-64 a lease, in flannel's form (subnet.FormatKey)
//	guards/10.5.1.0-24                  the name of the node that holds this subnet
//	guards/fd00:0:0:1::-64              the same for IPv6
//	nodes/worker-1                      which lease the node has, and its public key
//
// A lease is unique per family because its guards are compared and written in the one
// transaction that writes it. Guards live where flannel's watch does not see them. All
// keys of a node hang on one etcd lease, which KeepAlive renews: that writes nothing and
// wakes nobody.
package etcd

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/rs/zerolog"
	"go.etcd.io/etcd/client/pkg/v3/transport"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
)

// Options say where etcd is and how to speak to it. Zero durations take the defaults named
// beside them. It does not print its password.
type Options struct {
	Endpoints []string // at least one; http:// or https://
	Prefix    string   // of all keys; a slash at its end is ignored
	CertFile  string   // of the client; needs KeyFile
	KeyFile   string
	CAFile    string // who signed etcd's certificate; alone it is enough for TLS
	Username  string
	Password  string

	TTL         time.Duration // of this node's lease, whole seconds; 24 h
	DialTimeout time.Duration // 5 s
	RPCTimeout  time.Duration // of one request, from sending to answer; 5 s
	Probe       time.Duration // how often to ask whether etcd is still the same and our lease still ours; 30 s
	Relist      time.Duration // how often to list everything again without a reason; 30 min
}

// String hides the password.
func (o Options) String() string {
	return fmt.Sprintf("etcd %s prefix %s user %q", strings.Join(o.Endpoints, ","), o.Prefix, o.Username)
}

// GoString hides the password.
func (o Options) GoString() string { return o.String() }

// filled returns o with its defaults.
func (o Options) filled() Options {
	standard := func(d *time.Duration, otherwise time.Duration) {
		if *d <= 0 {
			*d = otherwise
		}
	}
	standard(&o.TTL, 24*time.Hour)
	standard(&o.DialTimeout, 5*time.Second)
	standard(&o.RPCTimeout, 5*time.Second)
	standard(&o.Probe, 30*time.Second)
	standard(&o.Relist, 30*time.Minute)
	o.Prefix = strings.TrimRight(o.Prefix, "/")
	return o
}

// Registry is the leases of one cluster in etcd. It is safe for concurrent use.
type Registry struct {
	opts   Options
	keys   layout
	config clientv3.Config
	log    zerolog.Logger
	health health
	pacer  pacer

	mu     sync.Mutex // guards what follows
	client *clientv3.Client
	closed bool
}

// Open prepares a registry. It reads the TLS files, but does not need etcd to be there:
// the first request dials. Close it after use.
func Open(ctx context.Context, opts Options, log zerolog.Logger) (*Registry, error) {
	opts = opts.filled()
	if len(opts.Endpoints) == 0 {
		return nil, errors.New("open etcd: no endpoint: give --etcd-endpoints")
	}
	conf := clientv3.Config{
		Context:              context.WithoutCancel(ctx), // Close ends it; a registry outlives the start-up that opens it
		Endpoints:            opts.Endpoints,
		DialTimeout:          opts.DialTimeout,
		DialKeepAliveTime:    10 * time.Second, // etcd refuses below 5 s
		DialKeepAliveTimeout: 5 * time.Second,
		Username:             opts.Username,
		Password:             opts.Password,
		Logger:               zap.NewNop(), // what matters comes back as an error
		// gRPC's own back-off grows to two minutes; a node should be back soon after etcd.
		DialOptions: []grpc.DialOption{grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: 200 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: 5 * time.Second},
			MinConnectTimeout: opts.DialTimeout,
		})},
	}
	if err := secure(&conf, opts); err != nil {
		return nil, err
	}
	return &Registry{opts: opts, keys: layout{opts.Prefix}, config: conf, log: log, health: health{since: time.Now()}}, nil
}

// secure adds the TLS files to conf.
func secure(conf *clientv3.Config, opts Options) error {
	if opts.CertFile == "" && opts.KeyFile == "" && opts.CAFile == "" {
		return nil
	}
	if (opts.CertFile == "") != (opts.KeyFile == "") {
		return errors.New("open etcd: a client certificate needs both --etcd-certfile and --etcd-keyfile")
	}
	for _, f := range []string{opts.CertFile, opts.KeyFile, opts.CAFile} {
		if f == "" {
			continue
		}
		if _, err := os.ReadFile(f); err != nil {
			return fmt.Errorf("open etcd: read TLS file: %w", err)
		}
	}
	info := transport.TLSInfo{CertFile: opts.CertFile, KeyFile: opts.KeyFile, TrustedCAFile: opts.CAFile}
	tls, err := info.ClientConfig()
	if err != nil {
		return fmt.Errorf("open etcd: read TLS files: %w", err)
	}
	conf.TLS = tls
	return nil
}

// Close ends every request and watch. It may be called more than once.
func (r *Registry) Close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.closed = true
	if r.client == nil {
		return nil
	}
	err := r.client.Close()
	r.client = nil
	if errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

// dial returns the client. Making one fetches a token when there is a user name, so it
// happens at the first request and is tried again after a failure.
func (r *Registry) dial() (*clientv3.Client, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return nil, errors.New("etcd registry is closed")
	}
	if r.client != nil {
		return r.client, nil
	}
	c, err := clientv3.New(r.config)
	if err != nil {
		return nil, err
	}
	r.client = c
	return c, nil
}

// do sends one request: it has RPCTimeout, its outcome is noted in Status, and its error
// says what was done, to which etcd, and what to try.
func (r *Registry) do(ctx context.Context, what string, send func(context.Context, *clientv3.Client) error) error {
	ctx, cancel := context.WithTimeout(ctx, r.opts.RPCTimeout)
	defer cancel()
	r.health.request()
	c, err := r.dial()
	if err == nil {
		err = send(ctx, c)
	}
	if err == nil {
		r.health.good()
		return nil
	}
	err = r.explain(what, err)
	if errors.Is(err, ErrUnavailable) {
		r.health.bad(err)
	}
	return err
}

// commit sends one transaction.
func (r *Registry) commit(ctx context.Context, what string, ifs []clientv3.Cmp, thens, elses []clientv3.Op) (*clientv3.TxnResponse, error) {
	var resp *clientv3.TxnResponse
	err := r.do(ctx, what, func(ctx context.Context, c *clientv3.Client) (err error) {
		resp, err = c.Txn(ctx).If(ifs...).Then(thens...).Else(elses...).Commit()
		return err
	})
	return resp, err
}
