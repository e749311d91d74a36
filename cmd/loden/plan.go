package main

import (
	"context"
	"encoding/json"
	"fmt"
	"text/tabwriter"
	"time"

	"github.com/rs/zerolog"
	"github.com/spf13/cobra"

	"github.com/loden-net/loden/config"
	"github.com/loden-net/loden/config/diff"
	"github.com/loden-net/loden/config/opt"
	"github.com/loden-net/loden/network"
	"github.com/loden-net/loden/subnet"
	"github.com/loden-net/loden/subnet/etcd"
)

func planCommand(node *config.Node) *cobra.Command {
	var asJSON bool
	var timeout time.Duration
	cmd := &cobra.Command{
		Use:   "plan",
		Short: "Print the changes that `loden run` would make now, and make none",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			log, err := newLogger(node, cmd.ErrOrStderr())
			if err != nil {
				return err
			}
			ctx, cancel := context.WithTimeout(cmd.Context(), timeout)
			defer cancel()
			changes, err := plan(ctx, node, log)
			if err != nil {
				return err
			}
			return printChanges(cmd, changes, asJSON)
		},
	}
	node.StoreFlags(cmd.Flags())
	node.HostFlags(cmd.Flags())
	node.RunFlags(cmd.Flags())
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	cmd.Flags().DurationVar(&timeout, "timeout", 10*time.Second, "how long to wait for etcd")
	return cmd
}

// plan returns what run would change on this host with what etcd holds now.
func plan(ctx context.Context, node *config.Node, log zerolog.Logger) ([]diff.Change, error) {
	if err := node.Validate(); err != nil {
		return nil, usageError(err)
	}
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

// printChanges prints changes as a table or as JSON.
func printChanges(cmd *cobra.Command, changes []diff.Change, asJSON bool) error {
	out := cmd.OutOrStdout()
	if asJSON {
		if changes == nil {
			changes = []diff.Change{}
		}
		enc := json.NewEncoder(out)
		enc.SetIndent("", "  ")
		return enc.Encode(changes)
	}
	if len(changes) == 0 {
		_, err := fmt.Fprintln(out, "no change")
		return err
	}
	w := tabwriter.NewWriter(out, 0, 8, 2, ' ', 0)
	for _, c := range changes {
		fmt.Fprintf(w, "%s\t%s\t%s\n", c.Part, c.Verb, c.Object)
	}
	return w.Flush()
}

// etcdOptions returns the store's options from the node's settings.
func etcdOptions(node *config.Node) etcd.Options {
	return etcd.Options{
		Endpoints: node.EtcdEndpoints, Prefix: node.EtcdPrefix,
		CertFile: node.EtcdCertFile, KeyFile: node.EtcdKeyFile, CAFile: node.EtcdCAFile,
		Username: node.EtcdUsername, Password: string(node.EtcdPassword), TTL: node.LeaseTTL,
	}
}
