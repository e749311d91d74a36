package node

import (
	"context"

	"github.com/loden-net/loden/config"
	"github.com/loden-net/loden/config/diff"
	"github.com/loden-net/loden/config/opt"
	"github.com/loden-net/loden/network"
	"github.com/loden-net/loden/subnet"
)

// Plan returns the changes that Run would make on this host with what etcd holds now, and
// makes none.
func Plan(ctx context.Context, s Settings) ([]diff.Change, error) {
	if err := s.Validate(); err != nil {
		return nil, err
	}
	node, log := &s.Node, s.Log
	registry, err := openRegistry(ctx, node, log)
	if err != nil {
		return nil, err
	}
	defer registry.Close()
	n, err := registry.Network(ctx)
	if err != nil {
		return nil, err
	}
	snapshot, err := registry.Snapshot(ctx)
	if err != nil {
		return nil, err
	}
	h, err := openHost(ctx, node, opt.Some(n), log)
	if err != nil {
		return nil, err
	}
	defer h.close()
	if err := h.preflight(ctx, opt.Some(n)); err != nil {
		return nil, err
	}
	in, err := h.inputs(n, snapshot)
	if err != nil {
		return nil, err
	}
	want, problems := network.Plan(in)
	for _, p := range problems {
		log.Warn().Str("object", p.Object).Str("reason", p.Reason).Msg("problem")
	}
	return h.reconciler(func(network.Status) {}).Pending(ctx, want)
}

// inputs returns what the state is a function of. A node without a lease gets the one that
// it would ask for.
func (h *host) inputs(n config.Network, snapshot subnet.Snapshot) (network.Inputs, error) {
	in := network.Inputs{Network: n, Self: h.self(), Outlook: h.outlook, Leases: snapshot.Leases}
	for _, l := range snapshot.Leases {
		if l.Node == h.node.Name {
			in.Lease = opt.Some(l)
			return in, nil
		}
	}
	env, _ := config.LoadEnv(h.node.SubnetFile) // what is readable in it is a wish, no more
	subnets, err := subnet.Allocate(n, h.node.Name, env.Or(config.Env{}).Subnets, in.Leases)
	if err != nil {
		return in, err
	}
	in.Lease = opt.Some(subnet.Lease{Node: h.node.Name, Key: h.key.Public(), Subnets: subnets, Endpoints: network.Endpoints(in)})
	return in, nil
}
