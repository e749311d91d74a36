package network

import (
	"slices"

	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"github.com/loden-net/loden/backend"
	"github.com/loden-net/loden/config/opt"
	"github.com/loden-net/loden/config/sorted"
	"github.com/loden-net/loden/subnet"
)

// planner computes what Plan computes, again and again for the reconciler. When only leases have
// changed, it judges the groups of leases that the change touches (see subnet.Claims) and keeps
// the rest of the state, so that a join costs the same in a network of ten nodes and of ten
// thousand. Plan is the definition: after any history the planner's state is Plan's, and its problems
// are Plan's, sorted. The zero planner has no plan.
type planner struct {
	in     Inputs
	state  State
	claims *subnet.Claims              // nil when the state must be planned as a whole
	faults sorted.List[subnet.Problem] // of leases
	others []subnet.Problem            // of this node and its host
}

// plan computes the state as a whole.
func (p *planner) plan(in Inputs) (State, []subnet.Problem) {
	*p = planner{in: in}
	own, ok := in.Lease.Get()
	if !ok {
		return p.result()
	}
	valid, peers, faults := judge(in, own, in.Leases.Slice())
	p.state, p.others = planFor(in, own, peers)
	p.others = append(p.others, shadowProblems(in, own.Subnets, valid)...)
	p.faults = sorted.Of(faults...)
	if p.state.Device.Present() && len(in.Shadows) == 0 { // a shadow is judged by all leases together
		p.claims = subnet.NewClaims(in.Leases)
	}
	return p.result()
}

// follow computes the state for other leases, with all other inputs as they were.
func (p *planner) follow(leases subnet.Leases) (State, []subnet.Problem) {
	own, held := p.in.Lease.Get()
	device, stands := p.state.Device.Get()
	if p.claims == nil || !held || !stands {
		in := p.in
		in.Leases = leases
		return p.plan(in)
	}
	p.in.Leases = leases
	again, gone := p.claims.Follow(leases)
	_, peers, faults := judge(p.in, own, again)
	is := map[wgtypes.Key]bool{}
	for _, peer := range peers {
		is[peer.Key] = true
	}
	for _, l := range slices.Concat(again, gone) {
		if !is[l.Key] {
			device.Peers = device.Peers.Without(backend.Peer{Key: l.Key})
		}
		p.solve(l.Title())
		p.solve(subnet.FormatKey(subnet.Inside(p.in.Network, l.Subnets))) // as a valid lease is called
	}
	for _, peer := range peers {
		device.Peers = device.Peers.With(peer)
	}
	for _, fault := range faults {
		p.faults = p.faults.With(fault)
	}
	p.state.Device = opt.Some(device)
	return p.result()
}

// solve forgets the problems of an object.
func (p *planner) solve(object string) {
	for fault := range p.faults.From(subnet.Problem{Object: object}) {
		if fault.Object != object {
			break
		}
		p.faults = p.faults.Without(fault)
	}
}

// result returns the state and all problems.
func (p *planner) result() (State, []subnet.Problem) {
	return p.state, append(slices.Clone(p.others), p.faults.Slice()...)
}

// nodeOf returns the name of the oldest node with a public key, or "".
func (p *planner) nodeOf(key wgtypes.Key) string {
	if p.claims != nil {
		for _, l := range p.claims.Of(key) {
			return l.Node
		}
		return ""
	}
	for l := range p.in.Leases.All() {
		if l.Key == key {
			return l.Node
		}
	}
	return ""
}
