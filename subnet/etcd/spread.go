package etcd

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/loden-net/loden/config/wait"
)

// errInTurn is errRelist at the end of the interval between two lists, which differs from node to
// node: no herd.
var errInTurn = fmt.Errorf("%w: in turn", errRelist)

// The herd: when etcd comes back from an outage with a compacted history, or as another etcd, every
// node of the cluster has to list all leases. N nodes read N leases of 400 bytes each, 40 GB in a
// cluster of 10,000. Nodes that list at once make etcd hold a page for each of them; so the lists
// are spread over the time that an etcd needs for them at 100 MB/s.
const (
	perPair    = 4 * time.Microsecond // 400 bytes at 100 MB/s, for each node and lease
	mostSpread = time.Minute          // a node goes on with old leases no longer than that
)

// listSpread returns the time over which the nodes of a cluster with so many leases spread their
// lists.
func listSpread(leases int) time.Duration {
	return min(time.Duration(leases)*time.Duration(leases)*perPair, mostSpread)
}

// spread waits before a list for which all nodes may have the same reason, or until ctx ends.
func spread(ctx context.Context, reason error, leases int) {
	if !errors.Is(reason, errInTurn) && ctx.Err() == nil {
		wait.For(ctx, rand.N(listSpread(leases)+1)) // spreads load; security does not rest on it
	}
}
