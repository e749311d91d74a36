package etcd

import (
	"context"
	"errors"
	"io"
	"math"
	"slices"
	"sync"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc"
)

// client sends requests to etcd. It is safe for concurrent use.
type client struct {
	opts   Options
	config clientv3.Config
	health health

	connections *connections

	mu     sync.Mutex // guards the fields below
	etcd   *clientv3.Client
	closed bool
}

// close ends every request and watch. It may be called more than once.
func (c *client) close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	if c.etcd == nil {
		return nil
	}
	err := c.etcd.Close()
	c.etcd = nil
	if errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

// dial returns etcd's client. Making it fetches a token when there is a user name, so it
// happens at the first request and is tried again after a failure.
func (c *client) dial() (*clientv3.Client, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil, errors.New("etcd registry is closed")
	}
	if c.etcd != nil {
		return c.etcd, nil
	}
	made, err := clientv3.New(c.config)
	if err != nil {
		return nil, err
	}
	c.etcd = made
	return made, nil
}

// do sends one request: it has RPCTimeout, Status shows its outcome, and its error names
// the action, the etcd, and the remedy. When a member refuses to serve (a learner,
// a member without a leader), the request is sent again to the members that serve.
func (c *client) do(ctx context.Context, what string, send func(context.Context, *clientv3.Client) error) error {
	ctx, cancel := context.WithTimeout(ctx, c.opts.RPCTimeout)
	defer cancel()
	c.health.request()
	defer c.connections.attend(ctx, c.connectNow)()
	err := c.send(ctx, send)
	for range len(c.opts.Endpoints) { // gRPC takes endpoints in turn until the new list counts
		if !memberRefuses(err) {
			break
		}
		c.passOver(ctx)
		err = c.send(ctx, send)
	}
	if err == nil {
		c.health.good()
		return nil
	}
	return c.failed(ctx, what, err)
}

// failed explains the failure of a request or a watch, and acts on it: Status shows it, a
// member that refuses is passed over, and all endpoints count again when none answers.
func (c *client) failed(ctx context.Context, what string, err error) error {
	if memberRefuses(err) {
		c.passOver(ctx)
	}
	err = c.explain(what, err)
	switch {
	case errors.Is(err, ErrUnavailable):
		c.health.bad(err)
		c.setEndpoints(c.opts.Endpoints)
	case errors.Is(err, ErrRefused):
		c.health.refused(err)
	}
	return err
}

// connectNow ends gRPC's pause between two attempts to connect: the host has other addresses.
func (c *client) connectNow() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.etcd != nil {
		c.etcd.ActiveConnection().ResetConnectBackoff()
	}
}

// passOver asks every endpoint whether it serves, and leaves out those that do not. gRPC
// takes endpoints in turn, so a watch can otherwise meet a learner time after time. A
// later list of all leases tries all endpoints again.
func (c *client) passOver(ctx context.Context) {
	etcd, err := c.dial()
	if err != nil || len(c.opts.Endpoints) < 2 {
		return
	}
	var serving []string
	for _, endpoint := range c.opts.Endpoints {
		ctx, cancel := context.WithTimeout(ctx, diagnoseLimit)
		resp, err := etcd.Status(ctx, endpoint)
		cancel()
		if err == nil && !resp.IsLearner && resp.Leader != 0 {
			serving = append(serving, endpoint)
		}
	}
	if len(serving) > 0 {
		c.setEndpoints(serving)
	}
}

// setEndpoints makes the client use these endpoints alone, if it exists.
func (c *client) setEndpoints(endpoints []string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.etcd != nil && !slices.Equal(c.etcd.Endpoints(), endpoints) {
		c.etcd.SetEndpoints(endpoints...)
	}
}

func (c *client) send(ctx context.Context, send func(context.Context, *clientv3.Client) error) error {
	etcd, err := c.dial()
	if err != nil {
		return err
	}
	return send(ctx, etcd)
}

// commit sends a transaction, and extra reads that are part of it. The puts hang on id.
func (c *client) commit(ctx context.Context, t transaction, id etcdID, reads ...clientv3.Op) (*clientv3.TxnResponse, error) {
	ifs, thens, elses := t.operations(id)
	var resp *clientv3.TxnResponse
	err := c.do(ctx, t.what, func(ctx context.Context, etcd *clientv3.Client) (err error) {
		resp, err = etcd.Txn(ctx).If(ifs...).Then(append(thens, reads...)...).Else(elses...).Commit()
		return err
	})
	return resp, err
}

// seconds returns the time to live of our leases, as etcd counts it.
func (c *client) seconds() int64 { return int64(math.Ceil(c.opts.TTL.Seconds())) }

// grant makes an etcd lease.
func (c *client) grant(ctx context.Context) (etcdID, error) {
	var id etcdID
	err := c.do(ctx, "grant lease", func(ctx context.Context, etcd *clientv3.Client) error {
		resp, err := etcd.Grant(ctx, c.seconds())
		if err == nil {
			id = resp.ID
		}
		return err
	})
	return id, err
}

// renew keeps an etcd lease alive and returns the time to live that it was granted with, in
// seconds. It fails with rpctypes.ErrLeaseNotFound. The client's own KeepAliveOnce tries
// again without a pause while etcd is away, so this method speaks the protocol itself.
func (c *client) renew(ctx context.Context, id etcdID) (int64, error) {
	var ttl int64
	err := c.do(ctx, "renew lease", func(ctx context.Context, etcd *clientv3.Client) error {
		stream, err := pb.NewLeaseClient(etcd.ActiveConnection()).LeaseKeepAlive(ctx, grpc.WaitForReady(true))
		if err != nil {
			return err
		}
		if err := stream.Send(&pb.LeaseKeepAliveRequest{ID: int64(id)}); err != nil && !errors.Is(err, io.EOF) { // EOF: Recv has the reason
			return err
		}
		resp, err := stream.Recv()
		if err != nil {
			return rpctypes.Error(err)
		}
		if ttl = resp.TTL; ttl <= 0 {
			return rpctypes.ErrLeaseNotFound
		}
		return stream.CloseSend()
	})
	return ttl, err
}

// revoke ends an etcd lease and deletes the keys that hang on it.
func (c *client) revoke(ctx context.Context, id etcdID) error {
	err := c.do(ctx, "revoke lease", func(ctx context.Context, etcd *clientv3.Client) error {
		_, err := etcd.Revoke(ctx, id)
		return err
	})
	if errors.Is(err, rpctypes.ErrLeaseNotFound) {
		return nil
	}
	return err
}
