// Registry measures what leases cost in etcd, Loden's way and flannel's, side by side in
// a single run against an etcd: many nodes that join at once, a further node in a large
// cluster, and the traffic and memory of a node that follows them.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"time"
)

// dualDoc has 65535 subnets of each family.
const dualDoc = `{"Network":"10.0.0.0/8","EnableIPv6":true,"IPv6Network":"fd00::/40","Backend":{"Type":"wireguard"}}`

// contender is a way of keeping leases. Each has etcd under a prefix of its own.
type contender interface {
	name() string

	// join makes node i, and claims a lease for it. Joining twice is not asked for.
	join(ctx context.Context, i int) (claim, error)

	// follow reports the number of leases known whenever it changes, until ctx ends.
	follow(ctx context.Context, known func(int)) error

	// seed writes n leases as n nodes would have left them.
	seed(ctx context.Context, n int) error

	prefix() string
}

// claim is the lease that a node got.
type claim struct {
	v4, v6   string
	requests int64 // that its claim took; -1 where the contender does not say
	races    int64
}

func main() {
	nodes := flag.Int("nodes", 1000, "nodes that join at once")
	watchers := flag.Int("watchers", 10, "of them, how many follow the others meanwhile")
	leases := flag.Int("leases", 10000, "leases of the large cluster")
	limit := flag.Duration("limit", 10*time.Minute, "for the whole run")
	flag.Parse()
	quietFlannel()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	ctx, cancel := context.WithTimeout(ctx, *limit)
	defer cancel()
	if err := run(ctx, *nodes, *watchers, *leases); err != nil {
		fmt.Fprintln(os.Stderr, "registry bench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, nodes, watchers, leases int) error {
	s, err := startStore()
	if err != nil {
		return err
	}
	defer s.close()
	for _, c := range []contender{newLoden(s, "/bench/loden"), newFlannel(s, "/bench/flannel")} {
		if err := s.put(ctx, c.prefix()+"/config", dualDoc); err != nil {
			return err
		}
		if err := atOnce(ctx, s, c, nodes, watchers); err != nil {
			return err
		}
		if err := s.clear(ctx, c.prefix()); err != nil {
			return err
		}
	}
	for _, c := range []contender{newLoden(s, "/big/loden"), newFlannel(s, "/big/flannel")} {
		if err := s.put(ctx, c.prefix()+"/config", dualDoc); err != nil {
			return err
		}
		if err := large(ctx, s, c, leases); err != nil {
			return err
		}
		if err := s.clear(ctx, c.prefix()); err != nil {
			return err
		}
	}
	return nil
}
