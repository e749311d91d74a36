package main

import (
	"context"
	"fmt"
	"net/netip"
	"time"

	"github.com/loden-net/loden/config/opt"
	"github.com/loden-net/loden/subnet"
)

// followers is how many real nodes follow the leases while the cost of events is measured; the
// cost of the whole cluster is that of a follower times the nodes.
const followers = 10

// costs prints what a join, a minute at rest, a restart and an outage cost etcd in a cluster of n
// nodes, of which ten are real.
func costs(ctx context.Context, program string, n int, rest time.Duration) error {
	s, err := newServer(program)
	if err != nil {
		return err
	}
	defer s.close()
	if err := s.start(ctx); err != nil {
		return err
	}
	client, err := s.dial()
	if err != nil {
		return err
	}
	defer client.Close()
	l := newLoden(&store{url: s.client, client: client}, "/cost")
	if err := l.s.put(ctx, "/cost/config", dualDoc); err != nil {
		return err
	}
	if err := l.seed(ctx, n-followers); err != nil {
		return err
	}
	var all []*member
	defer func() {
		for _, m := range all {
			m.close()
		}
	}()
	for i := range followers {
		m, err := join(ctx, s.client, "/cost", n+i)
		if err != nil {
			return err
		}
		m.follow(ctx)
		all = append(all, m)
	}
	know := func(leases int) func(*member) bool {
		return func(m *member) bool { return int(m.leases.Load()) == leases }
	}
	if err := expect(ctx, all, "know all leases", know(n)); err != nil {
		return err
	}
	fmt.Printf("%d nodes:\n", n)
	before := s.load()
	newcomer, err := join(ctx, s.client, "/cost", 2*n)
	if err != nil {
		return err
	}
	joined := s.load()
	if err := expect(ctx, all, "know the newcomer", know(n+1)); err != nil {
		return err
	}
	fmt.Printf("  a join, without what followers get: %s\n", joined.per(before, 1))
	if err := toldOf(ctx, s, l, n, all); err != nil {
		return err
	}
	newcomer.close()
	before = s.load()
	restarted, err := join(ctx, s.client, "/cost", 2*n)
	if err != nil {
		return err
	}
	all = append(all, restarted)
	restarted.follow(ctx)
	if err := expect(ctx, all, "know all leases after the restart", know(n+2)); err != nil {
		return err
	}
	fmt.Printf("  a restart: %s\n", s.load().per(before, 1))
	if rest > 0 {
		before = s.load()
		pause(ctx, rest)
		fmt.Printf("  a node at rest, per minute: %s\n", s.load().per(before, float64(len(all))*rest.Minutes()))
	}
	s.kill()
	pause(ctx, 5*time.Second)
	if err := s.start(ctx); err != nil {
		return err
	}
	if err := expect(ctx, all, "connected after the outage", func(m *member) bool { return m.r.Status().Connected }); err != nil {
		return err
	}
	pause(ctx, 2*time.Second)
	lists := 0
	for _, m := range all {
		lists = max(lists, int(m.r.Status().Relists))
	}
	fmt.Printf("  an outage, each node: %s; lists in its life: %d at most\n", s.load().per(load{}, float64(len(all))), lists)
	return ctx.Err()
}

// toldOf prints what the followers get of a lease that appears.
func toldOf(ctx context.Context, s *server, l loden, n int, all []*member) error {
	before := s.load()
	x := lease(3 * n)
	x.Subnets.V4 = opt.Some(netip.MustParsePrefix("10.255.255.0/24"))
	if err := l.s.put(ctx, "/cost/subnets/"+subnet.FormatKey(x.Subnets), string(subnet.FormatValue(x))); err != nil {
		return err
	}
	if err := expect(ctx, all, "know the lease", func(m *member) bool { return int(m.leases.Load()) == n+2 }); err != nil {
		return err
	}
	pause(ctx, 300*time.Millisecond)
	told := s.load()
	deliveries, size := (told.events-before.events)/followers, (told.sent-before.sent)/1024/followers
	fmt.Printf("    each follower gets %.3g watch deliveries of it with %.3g KB; the cluster %.4g deliveries with %.4g KB\n",
		deliveries, size, deliveries*float64(n), size*float64(n))
	return nil
}
