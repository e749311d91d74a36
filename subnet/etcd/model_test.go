package etcd_test

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/anishathalye/porcupine"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/loden-net/loden/config/opt"
	"github.com/loden-net/loden/subnet"
)

// The model's view of an operation.
type (
	input struct {
		op, node string
		since    int64 // of the claim that is used
	}
	output struct {
		ok, unknown bool
		subnets     opt.Dual[netip.Prefix]
		since       int64
		list        map[string]holding
	}
	holding struct {
		subnets opt.Dual[netip.Prefix]
		since   int64
	}
)

// holders is the state of the model: the subnets of each node. A node without a lease is the zero
// holding. It is comparable.
type holders [5]holding

// flannels is a lease that flannel wrote before the history began.
var flannels = holding{subnets: opt.Dual[netip.Prefix]{
	V4: opt.Some(netip.MustParsePrefix("10.9.0.12/30")), V6: opt.Some(netip.MustParsePrefix("fd09:0:0:10::/62")),
}}

// model is the allocation as a single list of holders. A claim without an answer may hold
// something the list does not know: that only takes room, and shows with the next answer.
var model = porcupine.NondeterministicModel{
	Init: func() []any { return []any{holders{4: flannels}} },
	Step: func(state, in, out any) []any {
		s, i, o := state.(holders), in.(input), out.(output)
		switch i.op {
		case "acquire":
			return s.acquire(slot(i.node), o)
		case "update":
			if o.ok && s[slot(i.node)].since != i.since {
				return nil // it wrote a lease that it does not hold
			}
		case "remove":
			return s.remove(i, o)
		case "list":
			return s.list(o)
		}
		return []any{s}
	},
}

func slot(node string) int { return int(node[0] - 'a') }

func (s holders) acquire(i int, o output) []any {
	if !o.ok {
		return []any{s}
	}
	got := holding{o.subnets, o.since}
	if s[i] != (holding{}) && s[i] != got {
		return nil // it had a lease and got another
	}
	s[i] = got
	if !s.disjoint() {
		return nil
	}
	return []any{s}
}

func (s holders) remove(i input, o output) []any {
	after := s
	for n := range after {
		if i.since != 0 && after[n].since == i.since {
			after[n] = holding{}
		}
	}
	if o.unknown {
		return []any{s, after}
	}
	return []any{after}
}

func (s holders) list(o output) []any {
	if !o.ok {
		return []any{s}
	}
	for n := range 4 {
		listed, there := o.list[string(rune('a'+n))]
		if s[n] != (holding{}) && (!there || listed != s[n]) {
			return nil // a holder is not listed as it is
		}
		s[n] = listed
	}
	if !s.disjoint() {
		return nil
	}
	return []any{s}
}

func (s holders) disjoint() bool {
	for i, a := range s {
		for _, b := range s[i+1:] {
			if overlap(a.subnets, b.subnets, opt.V4) || overlap(a.subnets, b.subnets, opt.V6) {
				return false
			}
		}
	}
	return true
}

func overlap(a, b opt.Dual[netip.Prefix], f opt.Family) bool {
	p, ok := a.Of(f).Get()
	q, ok2 := b.Of(f).Get()
	return ok && ok2 && p.Overlaps(q)
}

// watchForDuplicates follows everything under a branch, event by event, and counts each
// time that two leases of a prefix hold the same subnet. The returned function ends it.
func watchForDuplicates(t *testing.T, c *clientv3.Client, branch string) func() (map[opt.Family]int, int) {
	t.Helper()
	resp, err := c.Get(t.Context(), branch)
	if err != nil {
		t.Fatal(err)
	}
	duplicates, events := map[opt.Family]int{}, 0
	held := map[string]map[string]opt.Dual[netip.Prefix]{} // by prefix, by key form
	done := make(chan struct{})
	fold := func(e *clientv3.Event) {
		base, leaf, ok := strings.Cut(strings.TrimPrefix(string(e.Kv.Key), branch), "/subnets/")
		if !ok {
			return
		}
		events++
		if e.Type == clientv3.EventTypeDelete {
			delete(held[base], leaf)
			return
		}
		subnets, err := subnet.ParseKey(leaf)
		if err != nil {
			t.Errorf("key %q: %v", e.Kv.Key, err)
		}
		for other, theirs := range held[base] {
			for _, f := range opt.Families() {
				if other != leaf && overlap(subnets, theirs, f) {
					duplicates[f]++
				}
			}
		}
		if held[base] == nil {
			held[base] = map[string]opt.Dual[netip.Prefix]{}
		}
		held[base][leaf] = subnets
	}
	watch := c.Watch(t.Context(), branch, clientv3.WithPrefix(), clientv3.WithRev(resp.Header.Revision+1))
	go func() {
		defer close(done)
		for resp := range watch {
			if resp.Err() != nil {
				t.Error(resp.Err())
			}
			for _, e := range resp.Events {
				if string(e.Kv.Key) == branch+"end" {
					return
				}
				fold(e)
			}
		}
	}()
	return func() (map[opt.Family]int, int) {
		if _, err := c.Put(t.Context(), branch+"end", ""); err != nil {
			t.Error(err)
		}
		select {
		case <-done:
		case <-within(t).Done():
			t.Error("the watch did not reach its end")
		}
		return duplicates, events
	}
}
