package etcd

import (
	"context"
	"errors"

	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc/codes"
)

// A writer under the prefix can write any amount. A branch is therefore read in
// pages: memory is bounded by a page, not by the branch.
const (
	firstPage  = 64       // keys; a small cluster needs a single page
	fullPage   = 500      // keys
	pageBytes  = 1 << 20  // bytes that a page should have; a lease of ours has about 400
	maxMessage = 16 << 20 // bytes that gRPC accepts at once; etcd's own limit for a request is 1.5 MiB
)

// pages reads all keys that begin with branch, at revision rev (0: now), and calls visit
// for each page. All pages are of the same revision.
func (c *client) pages(ctx context.Context, what, branch string, rev int64, visit func(*clientv3.GetResponse)) error {
	next, end := branch, clientv3.GetPrefixRangeEnd(branch)
	limit := int64(firstPage)
	keysOnly := false // for a value that is larger than a message
	for {
		opts := []clientv3.OpOption{clientv3.WithRange(end), clientv3.WithLimit(limit), clientv3.WithRev(rev)}
		if keysOnly {
			opts = append(opts, clientv3.WithKeysOnly())
		}
		resp, err := c.get(ctx, what, next, opts...)
		if tooLarge(err) && !keysOnly {
			keysOnly = limit == 1
			limit = max(limit/8, 1)
			continue
		}
		if err != nil {
			return err
		}
		visit(resp)
		if !resp.More || len(resp.Kvs) == 0 {
			return nil
		}
		if rev == 0 {
			rev = resp.Header.Revision
		}
		next, keysOnly = string(resp.Kvs[len(resp.Kvs)-1].Key)+"\x00", false
		limit = pageLimit(resp.Kvs, limit)
	}
}

// get sends a read. The answer's header has the revision that was read.
func (c *client) get(ctx context.Context, what, key string, opts ...clientv3.OpOption) (*clientv3.GetResponse, error) {
	var resp *clientv3.GetResponse
	err := c.do(ctx, what, func(ctx context.Context, etcd *clientv3.Client) (err error) {
		resp, err = etcd.Get(ctx, key, opts...)
		return err
	})
	return resp, err
}

// pageLimit returns how many keys the next page should have after a page of kvs.
func pageLimit(kvs []*mvccpb.KeyValue, limit int64) int64 {
	size := 0
	for _, kv := range kvs {
		size += len(kv.Key) + len(kv.Value)
	}
	fits := int64(pageBytes * len(kvs) / max(size, 1))
	return max(min(fits, 8*limit, fullPage), 1)
}

// tooLarge reports whether a message was larger than gRPC accepts.
func tooLarge(err error) bool {
	return err != nil && code(err) == codes.ResourceExhausted &&
		!errors.Is(err, rpctypes.ErrTooManyRequests) && !errors.Is(err, rpctypes.ErrNoSpace)
}

// readAt reads single keys, in a transaction.
func (c *client) readAt(ctx context.Context, what string, keys []string) ([]*mvccpb.KeyValue, error) {
	var out []*mvccpb.KeyValue
	const most = 100 // etcd's --max-txn-ops is 128 by default
	for len(keys) > 0 {
		var gets []clientv3.Op
		for _, key := range keys[:min(most, len(keys))] {
			gets = append(gets, clientv3.OpGet(key))
		}
		keys = keys[len(gets):]
		resp, err := c.commit(ctx, transaction{what: what}, forGood, gets...)
		if err != nil {
			return nil, err
		}
		out = append(out, read(resp)...)
	}
	return out, nil
}
