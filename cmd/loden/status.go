package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/loden-net/loden/config"
	"github.com/loden-net/loden/config/opt"
)

// Exit statuses of `loden status`, so that a script need not read the table.
const (
	exitDegraded = 3 // the node runs and something is wrong
	exitNoDaemon = 4 // nobody answers
)

func statusCommand(node *config.Node) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show this node, its peers and its problems",
		Long: "Show what the `loden run` of this node says of itself. The exit status is 0 when all is well, " +
			"3 when the node runs and something is wrong, 4 when nobody answers.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			rep, err := askNode(cmd.Context(), node.RunDir)
			if err != nil {
				return err
			}
			if asJSON {
				enc := json.NewEncoder(cmd.OutOrStdout())
				enc.SetIndent("", "  ")
				err = enc.Encode(rep)
			} else {
				err = rep.print(cmd.OutOrStdout(), time.Now())
			}
			if err == nil && (!rep.Ready || rep.Reason != "") {
				return exitError{status: exitDegraded}
			}
			return err
		},
	}
	node.HostFlags(cmd.Flags())
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

// askLimit bounds a question to the node's own daemon.
const askLimit = 5 * time.Second

// askNode reads the report of the daemon that runs on this node.
func askNode(ctx context.Context, runDir string) (report, error) {
	var rep report
	resp, err := request(ctx, runDir, http.MethodGet, "/status")
	if err != nil {
		return rep, err
	}
	defer resp.Body.Close()
	if err := json.NewDecoder(resp.Body).Decode(&rep); err != nil {
		return rep, fmt.Errorf("read status: %w", err)
	}
	return rep, nil
}

// request speaks HTTP with the daemon over its socket. The caller closes the body.
func request(ctx context.Context, runDir, method, path string) (*http.Response, error) {
	client := http.Client{Timeout: askLimit, Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "unix", socketPath(runDir))
		},
	}}
	req, err := http.NewRequestWithContext(ctx, method, "http://loden"+path, nil)
	if err != nil {
		return nil, err
	}
	resp, err := client.Do(req)
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED):
		return nil, exitError{exitNoDaemon, fmt.Errorf("nobody answers at %s: start `loden run`, or give its --run-dir", socketPath(runDir))}
	case errors.Is(err, fs.ErrPermission):
		return nil, exitError{exitNoDaemon, fmt.Errorf("%s is for root: use sudo", socketPath(runDir))}
	case err != nil:
		return nil, exitError{exitNoDaemon, fmt.Errorf("ask loden run: %w", err)}
	}
	return resp, nil
}

// print writes the report for people.
func (r report) print(out io.Writer, now time.Time) error {
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
	fmt.Fprintf(w, "rules in\t%s\t%s\n", r.Firewall.Kind, r.Firewall.Reason)
	fmt.Fprintf(w, "guard\t%s\t%s\n", r.Firewall.Guard, r.Firewall.clear())
	fmt.Fprintf(w, "etcd\t%s\t%s\n", r.Store.word(), r.Store.detail(now))
	fmt.Fprintf(w, "passes\t%d\t%d incomplete\n", r.Passes.Total, r.Passes.Failed)
	if err := w.Flush(); err != nil {
		return err
	}
	if len(r.Peers) > 0 {
		fmt.Fprintln(w, "\nPEER\tSUBNETS\tENDPOINT\tHANDSHAKE\tRECEIVED\tSENT")
	}
	for _, p := range r.Peers {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\n", p.name(), join(p.Subnets), p.Endpoint, ago(now, p.Handshake), size(p.Received), size(p.Sent))
	}
	if len(r.Problems) > 0 {
		fmt.Fprintln(w, "\nPROBLEM\tREASON")
	}
	for _, p := range r.Problems {
		fmt.Fprintf(w, "%s\t%s\n", p.Object, p.Reason)
	}
	return w.Flush()
}

func (p peerReport) name() string {
	if p.Node != "" {
		return p.Node
	}
	return p.PublicKey
}

// clear says what the guard has caught.
func (f firewallReport) clear() string {
	var parts []string
	for _, c := range f.Clear {
		if c.Packets > 0 {
			parts = append(parts, fmt.Sprintf("%d %s packets %s", c.Packets, c.Family, c.Direction))
		}
	}
	if len(parts) == 0 {
		return "nothing in plaintext"
	}
	return "caught in plaintext: " + strings.Join(parts, ", ")
}

func (s storeReport) word() string {
	if s.Up {
		return "up"
	}
	return "AWAY"
}

func (s storeReport) detail(now time.Time) string {
	text := "revision " + fmt.Sprint(s.Revision)
	if !s.Since.IsZero() {
		text = "since " + ago(now, s.Since) + ", " + text
	}
	if s.FromDisk {
		text += ", leases from disk, taken " + ago(now, s.Snapshot)
	}
	if len(s.Held) > 0 {
		text += fmt.Sprintf(", %d vanished leases held (loden lease confirm lets them go)", len(s.Held))
	}
	if !s.Up && s.Error != "" {
		text += ", " + s.Error
	}
	return text
}

// join prints what is present of both families.
func join[T any](d opt.Dual[T]) string {
	var parts []string
	for _, v := range d.All() {
		parts = append(parts, fmt.Sprint(v))
	}
	if len(parts) == 0 {
		return "-"
	}
	return strings.Join(parts, " ")
}

// ago prints how long ago t was, or "never" for the zero time.
func ago(now, t time.Time) string {
	if t.IsZero() {
		return "never"
	}
	return now.Sub(t).Round(time.Second).String() + " ago"
}

// size prints a number of bytes.
func size(n int64) string {
	const unit = 1024
	if n < unit {
		return fmt.Sprintf("%d B", n)
	}
	f, i := float64(n)/unit, 0
	for ; f >= unit && i < 4; i++ {
		f /= unit
	}
	return fmt.Sprintf("%.1f %ciB", f, "KMGTP"[i])
}
