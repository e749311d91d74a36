// Registry measures what leases cost in etcd, Loden's way and flannel's, side by side in
// a single run against an etcd: many nodes that join at once, a further node in a large
// cluster, and the traffic and memory of a node that follows them.
//
//	registry                     loden beside flannel, etcd inside this program
//	registry -etcd bin/etcd      costs of a cluster for etcd, and a herd after an outage
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strconv"
	"strings"
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
	limit := flag.Duration("limit", 20*time.Minute, "for the whole run")
	etcd := flag.String("etcd", "", "the etcd server of costs and herd, which run in place of the rest when it is given")
	sizes := flag.String("costs", "100,1000,10000", "cluster sizes of which the costs for etcd are measured; empty: none")
	rest := flag.Duration("rest", time.Minute, "how long the nodes at rest are watched; 0: not")
	herdSize := flag.Int("herd", 10000, "nodes that come back at once after an outage; 0: none")
	outage := flag.Duration("outage", 10*time.Second, "length of that outage")
	flag.Parse()
	quietFlannel()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	ctx, cancel := context.WithTimeout(ctx, *limit)
	defer cancel()
	work := func() error { return run(ctx, *nodes, *watchers, *leases) }
	if *etcd != "" {
		work = func() error { return beside(ctx, *etcd, *sizes, *rest, *herdSize, *outage) }
	}
	if err := work(); err != nil {
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

// beside measures against an etcd in a process of its own.
func beside(ctx context.Context, etcd, sizes string, rest time.Duration, nodes int, outage time.Duration) error {
	for word := range strings.FieldsFuncSeq(sizes, func(r rune) bool { return r == ',' }) {
		n, err := strconv.Atoi(word)
		if err != nil || n <= followers {
			return fmt.Errorf("-costs %q: want numbers of more than %d nodes", sizes, followers)
		}
		if err := costs(ctx, etcd, n, rest); err != nil {
			return fmt.Errorf("costs of %d nodes: %w", n, err)
		}
	}
	if nodes == 0 {
		return nil
	}
	return herd(ctx, etcd, nodes, outage)
}
