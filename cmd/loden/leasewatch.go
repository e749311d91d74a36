package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"

	"github.com/spf13/cobra"

	"github.com/loden-net/loden/config"
	"github.com/loden-net/loden/config/diff"
	"github.com/loden-net/loden/config/opt"
	"github.com/loden-net/loden/subnet"
	"github.com/loden-net/loden/subnet/etcd"
)

func leaseWatchCommand(flags *config.Node) *cobra.Command {
	var s store
	var asJSON bool
	cmd := &cobra.Command{
		Use: "watch", Short: "Print leases as they come, change and go", Args: cobra.NoArgs,
		Long: "Print all leases, and then each as it comes (+), changes (~) and goes (-), until interrupted.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			return s.open(cmd.Context(), flags, func(ctx context.Context, r *etcd.Registry) error {
				if _, err := r.Snapshot(ctx); err != nil { // so that a wrong address is said at once
					return err
				}
				w := leaseWriter{out: cmd.OutOrStdout(), asJSON: asJSON}
				err := r.Watch(ctx, w.show)
				if errors.Is(err, context.Canceled) {
					return nil
				}
				return err
			})
		},
	}
	s.flags(cmd, flags)
	cmd.Flags().BoolVar(&asJSON, "json", false, "print one JSON object per line")
	return cmd
}

// leaseWriter prints the difference of each snapshot from the last.
type leaseWriter struct {
	out    io.Writer
	asJSON bool
	last   subnet.Snapshot
}

// leaseEvent is a line of `loden lease watch --json`.
type leaseEvent struct {
	versioned
	Revision  int64                    `json:"revision"`
	Event     string                   `json:"event"` // added, changed, removed, problem
	Node      string                   `json:"node,omitempty"`
	Subnets   opt.Dual[netip.Prefix]   `json:"subnets,omitzero"`
	Endpoints opt.Dual[netip.AddrPort] `json:"endpoints,omitzero"`
	PublicKey string                   `json:"publicKey,omitempty"`
	Object    string                   `json:"object,omitempty"`
	Reason    string                   `json:"reason,omitempty"`
}

func (w *leaseWriter) show(s subnet.Snapshot) {
	come, gone := diff.Sets(w.last.Leases.Slice(), s.Leases.Slice())
	before := map[opt.Dual[netip.Prefix]]bool{}
	for _, l := range gone {
		before[l.Subnets] = true
	}
	for _, l := range come {
		if before[l.Subnets] {
			w.line(s.Revision, "changed", "~", l)
			delete(before, l.Subnets)
		} else {
			w.line(s.Revision, "added", "+", l)
		}
	}
	for _, l := range gone {
		if before[l.Subnets] {
			w.line(s.Revision, "removed", "-", l)
		}
	}
	problems, _ := diff.Sets(w.last.Problems, s.Problems)
	for _, p := range problems {
		if w.asJSON {
			w.encode(leaseEvent{Revision: s.Revision, Event: "problem", Object: p.Object, Reason: p.Reason})
		} else {
			fmt.Fprintf(w.out, "! %s: %s\n", p.Object, p.Reason)
		}
	}
	w.last = s
}

func (w *leaseWriter) line(revision int64, event, sign string, l subnet.Lease) {
	if w.asJSON {
		w.encode(leaseEvent{
			Revision: revision, Event: event, Node: l.Node, Subnets: l.Subnets,
			Endpoints: l.Endpoints, PublicKey: l.Key.String(),
		})
		return
	}
	fmt.Fprintf(w.out, "%s %s  %s  %s  %s\n", sign, nodeName(l), join(l.Subnets), join(l.Endpoints), l.Key)
}

func (w *leaseWriter) encode(e leaseEvent) {
	e.versioned = version1()
	data, _ := json.Marshal(e) // plain values: it cannot fail
	fmt.Fprintf(w.out, "%s\n", data)
}
