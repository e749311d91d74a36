package main

import (
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
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
	var asJSON, watch, all, matrix bool
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show this node, its problems and its peers",
		Long: "Show the report of the `loden run` of this node: the verdict, the problems with their remedies, the node, and " +
			"each peer with the state of its path, round trip (IPv4/IPv6), loss, MTU of the path, age of the handshake, and " +
			"rates. Of more than 20 peers only those are listed that are not up. With --matrix show the paths between all " +
			"nodes instead, as each node reports them.\n\n" +
			"The exit status is 0 when the node is ready and healthy, 3 when it is not ready, has a problem, or a peer is down, " +
			"one-way or mtu, 4 when no daemon answers. Colours go to a terminal only, and never with NO_COLOR set.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			show := func(ctx context.Context) error { return showStatus(ctx, cmd.OutOrStdout(), flags.RunDir, asJSON, all) }
			if matrix {
				show = func(ctx context.Context) error { return showMatrix(ctx, cmd.OutOrStdout(), flags.RunDir, asJSON) }
			}
			if watch {
				return watchStatus(cmd.Context(), cmd.OutOrStdout(), show)
			}
			return show(cmd.Context())
		},
	}
	flags.HostFlags(cmd.Flags())
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	cmd.Flags().BoolVar(&watch, "watch", false, "show it again every two seconds, until Ctrl-C")
	cmd.Flags().BoolVar(&all, "all", false, "list every peer")
	cmd.Flags().BoolVar(&matrix, "matrix", false, "show the paths between all nodes")
	return cmd
}

// showStatus prints the report of this node's daemon once.
func showStatus(ctx context.Context, out io.Writer, runDir string, asJSON, all bool) error {
	rep, err := node.Ask(ctx, runDir)
	if err != nil {
		return err
	}
	if asJSON {
		err = printJSON(out, rep)
	} else {
		err = printReport(out, rep, statusView{paint: paintFor(out), width: widthOf(out), all: all, now: time.Now()})
	}
	if err == nil && !rep.Healthy() {
		return exitError{status: exitDegraded}
	}
	return err
}

// watchEvery is the time between two pictures of --watch.
const watchEvery = 2 * time.Second

// watchStatus shows a picture again and again until ctx ends; on a terminal in the place of the
// picture before. A daemon that gives no answer is asked again, since it may just be restarting.
func watchStatus(ctx context.Context, out io.Writer, show func(context.Context) error) error {
	ticks := time.NewTicker(watchEvery)
	defer ticks.Stop()
	for {
		if terminal(out) {
			fmt.Fprint(out, "\x1b[H\x1b[2J")
		}
		if err := show(ctx); err != nil && err.Error() != "" && ctx.Err() == nil {
			fmt.Fprintln(out, "loden: "+oneLine(err.Error()))
		}
		select {
		case <-ctx.Done():
			return nil
		case <-ticks.C:
		}
		if !terminal(out) {
			fmt.Fprintln(out)
		}
	}
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
