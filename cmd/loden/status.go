package main

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/loden-net/loden/config"
	"github.com/loden-net/loden/network/node"
)

// Exit statuses of `loden status`, so that a script need not read the table.
const (
	exitDegraded = 3 // the node runs, and is not ready or not healthy
	exitNoDaemon = 4 // no daemon answers
)

func statusCommand(flags *config.Node) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show this node, its peers and its problems",
		Long: "Show the report of the `loden run` of this node. The exit status is 0 when the node is ready and healthy, " +
			"3 when it is not ready or has a problem, 4 when no daemon answers.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			rep, err := node.Ask(cmd.Context(), flags.RunDir)
			if err != nil {
				return err
			}
			if asJSON {
				err = printJSON(cmd.OutOrStdout(), rep)
			} else {
				err = printReport(cmd.OutOrStdout(), rep, time.Now())
			}
			if err == nil && !rep.Healthy() {
				return exitError{status: exitDegraded}
			}
			return err
		},
	}
	flags.HostFlags(cmd.Flags())
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

// printReport writes the report for people.
func printReport(out io.Writer, r node.Report, now time.Time) error {
	w := tabwriter.NewWriter(out, 0, 8, 2, ' ', 0)
	state := "ready"
	if !r.Ready {
		state = "NOT READY"
	}
	if r.Reason != "" {
		state += ": " + r.Reason
	}
	fmt.Fprintf(w, "node\t%s\t%s\n", r.Node, state)
	fmt.Fprintf(w, "subnets\t%s\tof %s\n", join(r.Subnets), join(r.Networks))
	fmt.Fprintf(w, "interface\t%s\tport %d, MTU %d, key %s\n", r.Interface, r.Port, r.MTU, r.PublicKey)
	fmt.Fprintf(w, "announced\t%s\tby %s\n", join(r.Endpoints), join(r.Uplinks))
	fmt.Fprintf(w, "encrypted by\t%s\t%s\n", r.Engine.Kind, r.Engine.Reason)
	if text := dropped(r.Engine); text != "" {
		fmt.Fprintf(w, "engine\t-\t%s\n", text)
	}
	if text := offloads(r.Engine); text != "" {
		fmt.Fprintf(w, "offloads\t-\t%s\n", text)
	}
	fmt.Fprintf(w, "rules in\t%s\t%s\n", r.Firewall.Kind, r.Firewall.Reason)
	fmt.Fprintf(w, "guard\t%s\t%s\n", r.Firewall.Guard, caught(r.Firewall))
	fmt.Fprintf(w, "etcd\t%s\t%s\n", storeWord(r.Store), storeDetail(r.Store, now))
	fmt.Fprintf(w, "passes\t%d\t%d incomplete\n", r.Passes.Total, r.Passes.Failed)
	if err := w.Flush(); err != nil {
		return err
	}
	if len(r.Peers) > 0 {
		fmt.Fprintln(w, "\nPEER\tSUBNETS\tENDPOINT\tHANDSHAKE\tRECEIVED\tSENT")
	}
	for _, p := range r.Peers {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\n", peerName(p), join(p.Subnets), p.Endpoint, ago(now, p.Handshake), size(p.Received), size(p.Sent))
	}
	if len(r.Problems) > 0 {
		fmt.Fprintln(w, "\nPROBLEM\tREASON")
	}
	for _, p := range r.Problems {
		fmt.Fprintf(w, "%s\t%s\n", p.Object, p.Reason)
	}
	return w.Flush()
}

func peerName(p node.PeerReport) string {
	if p.Node != "" {
		return p.Node
	}
	return p.PublicKey
}

// offloads prints the offloads of the userspace engine that are not in use; "" when all are.
func offloads(e node.EngineReport) string {
	var parts []string
	for _, name := range slices.Sorted(maps.Keys(e.Offloads)) {
		if state := e.Offloads[name]; state != "on" {
			parts = append(parts, name+" "+state)
		}
	}
	return strings.Join(parts, ", ")
}

// dropped prints the drop counters of the userspace engine and the number of engines that
// were replaced; "" when all are 0.
func dropped(e node.EngineReport) string {
	var parts []string
	if e.Replaced > 0 {
		parts = append(parts, fmt.Sprintf("%d hung engines replaced", e.Replaced))
	}
	for _, reason := range slices.Sorted(maps.Keys(e.Drops)) {
		if n := e.Drops[reason]; n > 0 {
			parts = append(parts, fmt.Sprintf("%d packets dropped (%s)", n, reason))
		}
	}
	return strings.Join(parts, ", ")
}

// caught prints the counters of the packet guard.
func caught(f node.FirewallReport) string {
	var parts []string
	for _, c := range f.Clear {
		if c.Packets > 0 {
			parts = append(parts, fmt.Sprintf("%d %s packets %s", c.Packets, c.Family, c.Direction))
		}
	}
	if len(parts) == 0 {
		return "no packet in plaintext"
	}
	return "caught in plaintext: " + strings.Join(parts, ", ")
}

func storeWord(s node.StoreReport) string {
	if s.Up {
		return "up"
	}
	return "AWAY"
}

func storeDetail(s node.StoreReport, now time.Time) string {
	text := "revision " + fmt.Sprint(s.Revision)
	if !s.Since.IsZero() {
		text = "for " + span(now.Sub(s.Since)) + ", " + text
	}
	if s.FromDisk {
		text += ", leases from disk, taken " + ago(now, s.Snapshot)
	}
	if len(s.Held) > 0 {
		text += fmt.Sprintf(", %d vanished leases held (loden lease confirm removes them)", len(s.Held))
	}
	if !s.Up && s.Error != "" {
		text += ", " + s.Error
	}
	return text
}
