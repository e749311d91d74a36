package network_test

import (
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/loden-net/loden/config/opt"
	"github.com/loden-net/loden/config/sorted"
	"github.com/loden-net/loden/network"
	"github.com/loden-net/loden/subnet"
)

// cluster is a random history of a cluster's leases in which leases conflict: few subnets, keys
// and names, so that they meet, and endpoints and subnets that are refused.
type cluster struct {
	revision int64
	leases   subnet.Leases
}

// step changes the leases: nodes join, leave, change key or endpoints, an older claim comes back.
func (c *cluster) step(t *rapid.T) {
	for range rapid.IntRange(1, 4).Draw(t, "changes") {
		present := c.leases.Slice()
		kind := rapid.IntRange(0, 9).Draw(t, "change")
		switch {
		case len(present) == 0 || kind < 5:
			c.put(c.draw(t))
		case kind < 8:
			c.leases = c.leases.Without(rapid.SampledFrom(present).Draw(t, "that leaves"))
		default:
			l := rapid.SampledFrom(present).Draw(t, "that changes")
			other := c.draw(t)
			l.Key, l.Node, l.Endpoints = other.Key, other.Node, other.Endpoints
			c.leases = c.leases.With(l)
		}
	}
}

// put writes a lease as etcd does: a key has a single lease.
func (c *cluster) put(l subnet.Lease) {
	for old := range c.leases.All() {
		if old.Subnets == l.Subnets {
			c.leases = c.leases.Without(old)
		}
	}
	c.leases = c.leases.With(l)
}

// draw makes a lease of any age: a restored backup brings old claims back.
func (c *cluster) draw(t *rapid.T) subnet.Lease {
	c.revision++
	l := node(rapid.IntRange(1, 7).Draw(t, "node"))
	l.Since = rapid.SampledFrom([]int64{c.revision, c.revision / 2, 1}).Draw(t, "since")
	l.Key = key(rapid.IntRange(0, 7).Draw(t, "key"))
	if rapid.IntRange(0, 5).Draw(t, "flannel's") == 0 {
		l.Node = ""
	}
	for f := range l.Subnets.All() {
		p, _ := node(rapid.IntRange(1, 7).Draw(t, "subnet of")).Subnets.Of(f).Get()
		switch rapid.IntRange(0, 9).Draw(t, "subnet") {
		case 0:
			if l.Subnets.Len() > 1 {
				l.Subnets = l.Subnets.Without(f)
			}
		case 1:
			l.Subnets = l.Subnets.With(f, netip.PrefixFrom(p.Addr(), p.Bits()+1)) // refused
		default:
			l.Subnets = l.Subnets.With(f, p)
		}
	}
	switch rapid.IntRange(0, 7).Draw(t, "endpoints") {
	case 0:
		l.Endpoints = l.Endpoints.With(opt.V4, netip.MustParseAddrPort("127.0.0.1:1")) // refused
	case 1:
		l.Endpoints = l.Endpoints.Without(opt.V4)
	case 2:
		l.Endpoints = l.Endpoints.Without(opt.V6)
	}
	return l
}

// agree fails when the planner's result is not Plan's.
func agree(t *rapid.T, in network.Inputs, got network.State, problems []subnet.Problem) {
	want, wantProblems := network.Plan(in)
	g, _ := got.Device.Get()
	w, _ := want.Device.Get()
	if !g.Peers.Equal(w.Peers) {
		t.Fatalf("peers\ngot  %v\nwant %v", g.Peers.Slice(), w.Peers.Slice())
	}
	g.Peers = w.Peers
	if got.Device.Present() {
		got.Device, want.Device = opt.Some(g), opt.Some(w)
	}
	if !reflect.DeepEqual(got, want) {
		t.Fatalf("state\ngot  %v\nwant %v", got, want)
	}
	if a, b := sorted.Of(problems...).Slice(), sorted.Of(wantProblems...).Slice(); !slices.Equal(a, b) || len(problems) != len(a) {
		t.Fatalf("problems\ngot  %v\nwant %v", a, b)
	}
}

// The planner judges only the leases that a change touches, and its result is Plan's after any
// history of joins, leaves, conflicts, younger claims that surface when an older claim goes, changed
// keys, and changes of the network, of this node's lease and of its uplinks.
func TestPlannerAgreesWithPlanAfterAnyHistory(t *testing.T) {
	documents := []string{dualDocument,
		`{"Network":"10.244.0.0/16","SubnetLen":25,"Backend":{"Type":"wireguard"}}`,
		`{"Network":"10.244.0.0/16","EnableIPv6":true,"IPv6Network":"fd44::/48","Backend":{"Type":"wireguard","Mode":"ipv6"}}`}
	rapid.Check(t, func(t *rapid.T) {
		c, p, in := cluster{}, network.Planner{}, inputs(t, dualDocument, 0)
		all := in.HostState
		state, _ := p.Plan(in)
		var problems []subnet.Problem
		for range rapid.IntRange(1, 30).Draw(t, "steps") {
			c.step(t)
			in.Leases = c.leases
			switch rapid.IntRange(0, 11).Draw(t, "beside the leases") {
			case 0:
				in.Network = document(t, rapid.SampledFrom(documents).Draw(t, "network"))
				state, problems = p.Plan(in)
			case 1:
				in.Lease = opt.Some(node(rapid.IntRange(1, 3).Draw(t, "own lease")))
				state, problems = p.Plan(in)
			case 2:
				in.HostState = all
				if rapid.Bool().Draw(t, "uplink lost") {
					in.Uplinks = in.Uplinks.Without(opt.V6)
				}
				if rapid.Bool().Draw(t, "shadow") {
					in.Shadows = []network.Shadow{{Dst: netip.MustParsePrefix("10.244.3.0/24"), Link: "eth9"}}
				}
				state, problems = p.Plan(in)
			default:
				before, was := state, fmt.Sprint(state)
				state, problems = p.Follow(c.leases)
				if fmt.Sprint(before) != was {
					t.Fatal("a step changed an earlier state")
				}
			}
			agree(t, in, state, problems)
		}
	})
}
