package node

import (
	"context"

	"github.com/loden-net/loden/config"
	"github.com/loden-net/loden/config/diff"
	"github.com/loden-net/loden/config/opt"
	"github.com/loden-net/loden/network"
	"github.com/loden-net/loden/subnet"
)

// Plan returns the changes that the first pass of Run would make on this host with the
// leases that etcd holds now, and makes none. It decides with the code of that pass: the
// subnets are those that Acquire would choose, and the changes are the reconciler's.
func Plan(ctx context.Context, s Settings) ([]diff.Change, error) {
	st, err := openStore(ctx, s)
	if err != nil {
		return nil, err
	}
	defer st.Close()
	n, err := st.Network(ctx)
	if err != nil {
		return nil, err
	}
	h, err := openHost(ctx, s, opt.Some(n))
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
	lease, err := st.choice(ctx, n, want, preferred(in, h.settings.SubnetFile, h.log))
	if err != nil {
		return nil, err
	}
	in.Lease = opt.Some(lease)
	state, problems := network.Plan(in)
	for _, p := range problems {
		h.log.Warn().Str("object", p.Object).Str("reason", p.Reason).Msg("problem")
	}
	return h.reconciler(func(network.Status) {}).Pending(ctx, state)
}
