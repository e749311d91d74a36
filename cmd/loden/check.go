package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/rs/zerolog"
	"github.com/spf13/cobra"

	"github.com/loden-net/loden/backend"
	"github.com/loden-net/loden/config"
	"github.com/loden-net/loden/config/opt"
	"github.com/loden-net/loden/network"
	"github.com/loden-net/loden/network/firewall"
)

// finding is one thing that was looked at.
type finding struct {
	What   string `json:"what"`
	State  state  `json:"state"`
	Detail string `json:"detail"` // what was found; for a failure the cause and the remedy
}

// state says how bad a finding is.
type state string

const (
	good state = "ok"
	warn state = "warn" // works, but perhaps not as wished
	bad  state = "FAIL" // loden run would not work
)

func checkCommand(node *config.Node) *cobra.Command {
	var asJSON, onWire bool
	var timeout time.Duration
	cmd := &cobra.Command{
		Use:   "check",
		Short: "Look for what would keep this host from being a node, and say what to do",
		Long: "Look for what would keep this host from being a node. Every finding has its cause and its remedy. " +
			"Nothing is changed. The exit status is 1 when something fails.\n\n" +
			"With --wire also look at the uplinks for a moment and count packets with overlay addresses in clear. A few empty " +
			"packets of that kind are sent to prove that they would be seen.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			log, err := newLogger(node, cmd.ErrOrStderr())
			if err != nil {
				return err
			}
			if err := node.Validate(); err != nil {
				return usageError(err)
			}
			ctx, cancel := context.WithTimeout(cmd.Context(), timeout)
			defer cancel()
			findings := check(ctx, node, onWire, log)
			if err := printFindings(cmd, findings, asJSON); err != nil {
				return err
			}
			for _, f := range findings {
				if f.State == bad {
					return exitError{status: 1}
				}
			}
			return nil
		},
	}
	node.StoreFlags(cmd.Flags())
	node.HostFlags(cmd.Flags())
	node.RunFlags(cmd.Flags())
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	cmd.Flags().BoolVar(&onWire, "wire", false, "look at the uplinks for overlay addresses in clear")
	cmd.Flags().DurationVar(&timeout, "timeout", 10*time.Second, "how long to try")
	return cmd
}

func printFindings(cmd *cobra.Command, findings []finding, asJSON bool) error {
	if asJSON {
		enc := json.NewEncoder(cmd.OutOrStdout())
		enc.SetIndent("", "  ")
		return enc.Encode(findings)
	}
	w := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 8, 2, ' ', 0)
	for _, f := range findings {
		fmt.Fprintf(w, "%s\t%s\t%s\n", f.State, f.What, f.Detail)
	}
	return w.Flush()
}

// check looks at everything; one failure does not hide another.
func check(ctx context.Context, node *config.Node, onWire bool, log zerolog.Logger) []finding {
	h := &host{node: node, log: log}
	out := []finding{checkPrivilege(), h.checkUplinks(), h.checkEngine(ctx)}
	if h.device != nil {
		defer h.close()
	}
	out = append(out, h.checkFirewall(ctx), h.checkFiles())
	n, stored := checkStore(ctx, node, log)
	out = append(out, stored...)
	if n, ok := n.Get(); ok {
		out = append(out, h.checkNetwork(ctx, n)...)
		if onWire {
			out = append(out, h.checkWire(ctx, n))
		}
	}
	return out
}

// found makes a finding of a result: the detail when it worked, the error otherwise.
func found(what, detail string, err error) finding {
	if err != nil {
		return finding{what, bad, oneLine(err.Error())}
	}
	return finding{what, good, detail}
}

func checkPrivilege() finding {
	if os.Geteuid() != 0 {
		return finding{"privilege", bad, "not root: run it with sudo, or give it CAP_NET_ADMIN and CAP_NET_RAW as root of a container"}
	}
	return finding{"privilege", good, "root"}
}

func (h *host) checkUplinks() finding {
	var err error
	h.outlook, err = h.look()
	var uplinks []string
	for f, u := range h.outlook.Uplinks.All() {
		uplinks = append(uplinks, fmt.Sprintf("%s %s on %s (MTU %d)", f, u.Public, u.Name, u.MTU))
	}
	return found("uplink", strings.Join(uplinks, ", "), err)
}

func (h *host) checkEngine(ctx context.Context) finding {
	var err error
	h.device, err = backend.Open(backend.Options{Name: h.node.Interface, Engine: h.node.Engine, RunDir: h.node.RunDir, Log: h.log})
	if err != nil {
		return found("wireguard", "", err)
	}
	return found("wireguard", fmt.Sprintf("%s: %s", h.device.Kind(), h.device.Reason()), h.device.Check(ctx))
}

func (h *host) checkFirewall(ctx context.Context) finding {
	w, err := firewall.Open(ctx, firewall.Options{Backend: h.node.Firewall, Log: h.log})
	if err != nil {
		return found("firewall", "", err)
	}
	_, err = w.Changes(ctx, firewall.Config{})
	return found("firewall", w.Name()+": "+w.Why(), err)
}

// checkFiles looks at the private key.
func (h *host) checkFiles() finding {
	key, err := backend.ReadKey(h.node.StateDir)
	if errors.Is(err, fs.ErrNotExist) {
		h.key, err = backend.NewKey()
		return found("private key", "none yet; loden run makes "+backend.KeyPath(h.node.StateDir), err)
	}
	h.key = key
	return found("private key", "public half "+key.Public().String(), err)
}

// checkStore asks etcd for the network document.
func checkStore(ctx context.Context, node *config.Node, log zerolog.Logger) (opt.Option[config.Network], []finding) {
	none := opt.None[config.Network]()
	registry, err := openRegistry(ctx, node, log)
	if err != nil {
		return none, []finding{found("etcd", "", err)}
	}
	defer registry.Close()
	n, err := registry.Network(ctx)
	if !registry.Status().Connected {
		return none, []finding{found("etcd", "", err)}
	}
	out := []finding{{"etcd", good, "answers"}}
	if err != nil {
		return none, append(out, found("network document", "", err))
	}
	text, err := json.Marshal(n)
	return opt.Some(n), append(out, found("network document", string(text), err))
}

// checkNetwork holds the network document against this host.
func (h *host) checkNetwork(ctx context.Context, n config.Network) []finding {
	in := network.Inputs{Network: n, Self: h.self(), Outlook: h.outlook}
	mtu := network.MTU(in)
	out := []finding{{"MTU", good, fmt.Sprintf("%d bytes in the tunnel", mtu)}}
	if mtu < 1280 && n.Ranges.V6.Present() {
		out[0] = finding{"MTU", bad, fmt.Sprintf("%d bytes in the tunnel, and IPv6 needs 1280 (RFC 8200): raise the uplink's MTU", mtu)}
	}
	for f, u := range h.outlook.Uplinks.All() {
		if r, ok := n.Ranges.Of(f).Get(); ok && r.Network.Contains(u.Address) {
			out = append(out, finding{"overlay", bad, fmt.Sprintf("the uplink's address %s lies in the overlay %s: choose another network", u.Address, r.Network)})
		}
	}
	if h.device == nil || h.outlook.Uplinks.IsZero() {
		return out
	}
	_, err := h.device.Changes(ctx, h.key, opt.Some(backend.Config{Port: network.Port(in), MTU: mtu, Addresses: opt.Dual[netip.Addr]{}}))
	return append(out, found("port", fmt.Sprintf("UDP %d can be had", network.Port(in)), err))
}
