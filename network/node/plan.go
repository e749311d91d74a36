package node

import (
	"context"
	"errors"

	"github.com/loden-net/loden/config"
	"github.com/loden-net/loden/config/diff"
	"github.com/loden-net/loden/config/opt"
	"github.com/loden-net/loden/network"
	"github.com/loden-net/loden/subnet"
	"github.com/loden-net/loden/subnet/etcd"
)

// Plan returns the changes that the first pass of Run would make on this host with the
// leases that etcd holds now, and makes none. It decides with the code of that pass: the
// subnets are those that Acquire would choose, and the changes are the reconciler's.
func Plan(ctx context.Context, s Settings) ([]diff.Change, error) {
	return realEnvironment().plan(ctx, s)
}

func (e environment) plan(ctx context.Context, s Settings) ([]diff.Change, error) {
	st, err := e.store(ctx, s)
	if err != nil {
		return nil, err
	}
	defer st.Close()
	n, err := st.Network(ctx)
	if err != nil {
		return nil, err
	}
	h, err := e.openHost(ctx, s, opt.Some(n))
	if err != nil {
		return nil, err
	}
	defer h.close()
	if err := h.preflight(ctx, opt.Some(n)); err != nil {
		return nil, err
	}
	return h.plan(ctx, n, st)
}

// plan returns the changes of a first pass for a network.
func (h *host) plan(ctx context.Context, n config.Network, st store) ([]diff.Change, error) {
	snapshot, err := st.Snapshot(ctx)
	if err != nil {
		return nil, err
	}
	in := h.inputs(n)
	in.Leases = snapshot.Leases
	want := subnet.Lease{Node: h.settings.Name, Key: h.key.Public(), Endpoints: network.Endpoints(in)}
	choice, err := st.Choice(ctx, etcd.Want{Network: n, Lease: want, Prefer: preferred(in, h.settings.SubnetFile, h.log), Avoid: in.Avoid()})
	if err != nil {
		return nil, err
	}
	if !choice.Held {
		h.log.Info().Str("subnets", subnet.FormatKey(choice.Lease.Subnets)).Msg("these subnets are free now; the node takes others if another node is faster")
	}
	// The lease replaces the entry of its key, which may be flannel's for this host.
	for l := range snapshot.Leases.All() {
		if l.Subnets == choice.Lease.Subnets {
			in.Leases = in.Leases.Without(l)
		}
	}
	in.Leases = in.Leases.With(choice.Lease)
	in.Lease = opt.Some(choice.Lease)
	state, problems := network.Plan(in)
	r := h.reconciler(func(network.Status) {})
	changes, err := r.Pending(ctx, state)
	obstacles, problemsErr := r.Problems(ctx, state)
	for _, p := range append(problems, obstacles...) {
		h.log.Warn().Str("object", p.Object).Str("reason", p.Reason).Msg("problem")
	}
	return changes, errors.Join(err, problemsErr)
}
