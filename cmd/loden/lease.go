package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/loden-net/loden/config"
	"github.com/loden-net/loden/config/opt"
	"github.com/loden-net/loden/subnet"
	"github.com/loden-net/loden/subnet/etcd"
)

func leaseCommand(flags *config.Node) *cobra.Command {
	cmd := &cobra.Command{Use: "lease", Short: "Show, watch, release and reserve leases"}
	cmd.AddCommand(leaseListCommand(flags), leaseWatchCommand(flags), leaseReleaseCommand(flags), leaseReserveCommand(flags))
	return cmd
}

func leaseListCommand(flags *config.Node) *cobra.Command {
	var s store
	var asJSON bool
	cmd := &cobra.Command{
		Use: "list", Short: "Show all leases and their problems", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return s.with(cmd, flags, func(ctx context.Context, r *etcd.Registry) error {
				list, err := listLeases(ctx, r, time.Now())
				if err != nil {
					return err
				}
				if asJSON {
					return printJSON(cmd.OutOrStdout(), list)
				}
				return list.print(cmd.OutOrStdout())
			})
		},
	}
	s.flags(cmd, flags)
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

// leaseList is the result of `loden lease list`.
type leaseList struct {
	versioned
	Leases   []leaseRow       `json:"leases"`
	Problems []subnet.Problem `json:"problems"`
}

// leaseRow is a lease. Durations are seconds.
type leaseRow struct {
	Node      string                   `json:"node"` // empty for flannel's
	HeldBy    string                   `json:"heldBy"`
	Subnets   opt.Dual[netip.Prefix]   `json:"subnets"`
	Endpoints opt.Dual[netip.AddrPort] `json:"endpoints"`
	PublicKey string                   `json:"publicKey,omitempty"`
	Age       opt.Option[int64]        `json:"ageSeconds,omitzero"`
	TTL       opt.Option[int64]        `json:"ttlSeconds,omitzero"` // none: reserved
	Reserved  bool                     `json:"reserved"`
	Waiting   bool                     `json:"waiting"` // for its node
}

// listLeases reads the leases, and finds their problems as a node does.
func listLeases(ctx context.Context, r *etcd.Registry, now time.Time) (leaseList, error) {
	entries, problems, err := r.Leases(ctx)
	if err != nil {
		return leaseList{}, err
	}
	list := leaseList{versioned: version1(), Leases: []leaseRow{}, Problems: append([]subnet.Problem{}, problems...)}
	var leases []subnet.Lease
	for _, e := range entries {
		list.Leases = append(list.Leases, rowOf(e, now))
		leases = append(leases, e.Lease)
	}
	n, err := r.Network(ctx)
	switch {
	case errors.Is(err, etcd.ErrUnavailable):
		return leaseList{}, err
	case err != nil: // leases can be shown without a document, but not judged
		list.Problems = append(list.Problems, subnet.Problem{Object: "network document", Reason: err.Error()})
	default:
		_, bad := subnet.Validate(n, subnet.Identity{}, leases)
		list.Problems = append(list.Problems, bad...)
	}
	return list, nil
}

func rowOf(e etcd.Entry, now time.Time) leaseRow {
	l := e.Lease
	row := leaseRow{
		Node: l.Node, HeldBy: "loden", Subnets: l.Subnets, Endpoints: l.Endpoints,
		Reserved: l.Reserved, Waiting: l.Waiting(),
	}
	if l.Node == "" {
		row.HeldBy = "flannel"
	}
	if !row.Waiting {
		row.PublicKey = l.Key.String()
	}
	if l.Claimed != 0 {
		row.Age = opt.Some(now.Unix() - l.Claimed)
	}
	if ttl, ok := e.TTL.Get(); ok {
		row.TTL = opt.Some(int64(ttl / time.Second))
	}
	return row
}

// print writes the list for people.
func (l leaseList) print(out io.Writer) error {
	w := tabwriter.NewWriter(out, 0, 8, 2, ' ', 0)
	fmt.Fprintln(w, "NODE\tSUBNETS\tENDPOINTS\tPUBLIC KEY\tAGE\tTTL LEFT\tHELD BY")
	for _, r := range l.Leases {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", orDash(r.Node), join(r.Subnets), join(r.Endpoints), orDash(r.PublicKey),
			seconds(r.Age, "-"), seconds(r.TTL, "reserved"), r.heldBy())
	}
	if err := w.Flush(); err != nil {
		return err
	}
	for _, p := range l.Problems {
		if _, err := fmt.Fprintf(out, "problem: %s: %s\n", p.Object, p.Reason); err != nil {
			return err
		}
	}
	return nil
}

func (r leaseRow) heldBy() string {
	if r.Waiting {
		return "no node yet"
	}
	return r.HeldBy
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

// seconds prints a time span, or the meaning of its absence.
func seconds(o opt.Option[int64], absent string) string {
	n, ok := o.Get()
	if !ok {
		return absent
	}
	return (time.Duration(n) * time.Second).String()
}

func nodeName(l subnet.Lease) string {
	if l.Node == "" {
		return "(flannel)"
	}
	return l.Node
}

func leaseReleaseCommand(flags *config.Node) *cobra.Command {
	var s store
	var reservation bool
	cmd := &cobra.Command{
		Use: "release NODE", Short: "Give back the lease of a node that is gone", Args: cobra.ExactArgs(1),
		ValidArgsFunction: completeNodes(flags, 1),
		Long: "Give back the lease of a node that is gone, without waiting for it to run out. A lease that flannel wrote has no " +
			"node name: give its key, such as '10.5.1.0-24'. A node that still runs claims its subnets again at once. A " +
			"reservation stays for its node, unless --reservation removes it.",
		RunE: func(cmd *cobra.Command, args []string) error {
			return s.with(cmd, flags, func(ctx context.Context, r *etcd.Registry) error {
				if reservation {
					return r.Unreserve(ctx, args[0])
				}
				return r.Release(ctx, args[0])
			})
		},
	}
	s.flags(cmd, flags)
	cmd.Flags().BoolVar(&reservation, "reservation", false, "remove a reservation too")
	return cmd
}

func leaseReserveCommand(flags *config.Node) *cobra.Command {
	var s store
	var v4, v6 string
	cmd := &cobra.Command{
		Use: "reserve NODE", Short: "Set subnets aside for a node, for good", Args: cobra.ExactArgs(1),
		Long: "Set subnets aside for a node, for good: they never run out, whether the node is there or not. A family that is " +
			"not given is chosen. A node that already has a lease keeps its subnets and runs on.",
		RunE: func(cmd *cobra.Command, args []string) error {
			want, err := parseSubnets(v4, v6)
			if err != nil {
				return usageError(err)
			}
			return s.with(cmd, flags, func(ctx context.Context, r *etcd.Registry) error {
				n, err := r.Network(ctx)
				if err != nil {
					return err
				}
				l, err := r.Reserve(ctx, n, args[0], want)
				if err == nil {
					fmt.Fprintf(cmd.OutOrStdout(), "%s reserved for node %s\n", join(l.Subnets), l.Node)
				}
				return err
			})
		},
	}
	s.flags(cmd, flags)
	cmd.Flags().StringVar(&v4, "subnet", "", "IPv4 subnet, such as 10.5.1.0/24")
	cmd.Flags().StringVar(&v6, "subnet6", "", "IPv6 subnet")
	return cmd
}

// parseSubnets reads --subnet and --subnet6.
func parseSubnets(v4, v6 string) (opt.Dual[netip.Prefix], error) {
	var out opt.Dual[netip.Prefix]
	for _, given := range []struct {
		flag, text string
		family     opt.Family
	}{{"--subnet", v4, opt.V4}, {"--subnet6", v6, opt.V6}} {
		if given.text == "" {
			continue
		}
		p, err := netip.ParsePrefix(given.text)
		if err != nil || opt.FamilyOf(p.Addr()) != given.family {
			return out, fmt.Errorf("%s %q: give an %s subnet in CIDR form", given.flag, given.text, given.family)
		}
		out = out.With(given.family, p.Masked())
	}
	return out, nil
}
