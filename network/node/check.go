package node

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"strings"

	"github.com/rs/zerolog"

	"github.com/loden-net/loden/backend"
	"github.com/loden-net/loden/config"
	"github.com/loden-net/loden/config/opt"
	"github.com/loden-net/loden/network"
	"github.com/loden-net/loden/network/firewall"
)

// Finding is one thing that was looked at.
type Finding struct {
	What   string `json:"what"`
	State  State  `json:"state"`
	Detail string `json:"detail"` // what was found; for a failure the cause and the remedy
}

// State says how bad a finding is.
type State string

// The states of a finding.
const (
	Good State = "ok"
	Warn State = "warn" // works, but perhaps not as wished
	Bad  State = "FAIL" // loden run would not work
)

// CheckOptions say what Check looks at beyond the usual.
type CheckOptions struct {
	Wire bool // look at the uplinks for overlay addresses in clear, which sends a few empty packets
}

// Check looks for what would keep this host from being a node, and changes nothing. One
// failure does not hide another.
func Check(ctx context.Context, s Settings, o CheckOptions) []Finding {
	node, log := &s.Node, s.Log
	h := &host{node: node, log: log}
	out := []Finding{checkPrivilege(), h.checkUplinks(), h.checkEngine(ctx)}
	if h.device != nil {
		defer h.close()
	}
	out = append(out, h.checkFirewall(ctx), h.checkFiles())
	n, stored := checkStore(ctx, node, log)
	out = append(out, stored...)
	if n, ok := n.Get(); ok {
		out = append(out, h.checkNetwork(ctx, n)...)
		if o.Wire {
			out = append(out, h.checkWire(ctx, n))
		}
	}
	return out
}

// found makes a finding of a result: the detail when it worked, the error otherwise.
func found(what, detail string, err error) Finding {
	if err != nil {
		return Finding{what, Bad, oneLine(err.Error())}
	}
	return Finding{what, Good, detail}
}

func checkPrivilege() Finding {
	if os.Geteuid() != 0 {
		return Finding{"privilege", Bad, "not root: run it with sudo, or give it CAP_NET_ADMIN and CAP_NET_RAW as root of a container"}
	}
	return Finding{"privilege", Good, "root"}
}

func (h *host) checkUplinks() Finding {
	var err error
	h.outlook, err = h.look()
	var uplinks []string
	for f, u := range h.outlook.Uplinks.All() {
		uplinks = append(uplinks, fmt.Sprintf("%s %s on %s (MTU %d)", f, u.Public, u.Name, u.MTU))
	}
	return found("uplink", strings.Join(uplinks, ", "), err)
}

func (h *host) checkEngine(ctx context.Context) Finding {
	var err error
	h.device, err = backend.Open(backend.Options{Name: h.node.Interface, Engine: h.node.Engine, RunDir: h.node.RunDir, Log: h.log})
	if err != nil {
		return found("wireguard", "", err)
	}
	return found("wireguard", fmt.Sprintf("%s: %s", h.device.Kind(), h.device.Reason()), h.device.Check(ctx))
}

func (h *host) checkFirewall(ctx context.Context) Finding {
	w, err := firewall.Open(ctx, firewall.Options{Backend: h.node.Firewall, Log: h.log})
	if err != nil {
		return found("firewall", "", err)
	}
	_, err = w.Changes(ctx, firewall.Config{})
	return found("firewall", w.Name()+": "+w.Reason(), err)
}

// checkFiles looks at the private key.
func (h *host) checkFiles() Finding {
	key, err := backend.ReadKey(h.node.StateDir)
	if errors.Is(err, fs.ErrNotExist) {
		h.key, err = backend.NewKey()
		return found("private key", "none yet; loden run makes "+backend.KeyPath(h.node.StateDir), err)
	}
	h.key = key
	return found("private key", "public half "+key.Public().String(), err)
}

// checkStore asks etcd for the network document.
func checkStore(ctx context.Context, node *config.Node, log zerolog.Logger) (opt.Option[config.Network], []Finding) {
	none := opt.None[config.Network]()
	registry, err := openRegistry(ctx, node, log)
	if err != nil {
		return none, []Finding{found("etcd", "", err)}
	}
	defer registry.Close()
	n, err := registry.Network(ctx)
	if !registry.Status().Connected {
		return none, []Finding{found("etcd", "", err)}
	}
	out := []Finding{{"etcd", Good, "answers"}}
	if err != nil {
		return none, append(out, found("network document", "", err))
	}
	text, err := json.Marshal(n)
	return opt.Some(n), append(out, found("network document", string(text), err))
}

// checkNetwork holds the network document against this host.
func (h *host) checkNetwork(ctx context.Context, n config.Network) []Finding {
	in := network.Inputs{Network: n, Self: h.self(), Outlook: h.outlook}
	mtu := network.MTU(in)
	out := []Finding{{"MTU", Good, fmt.Sprintf("%d bytes in the tunnel", mtu)}}
	if mtu < 1280 && n.Ranges.V6.Present() {
		out[0] = Finding{"MTU", Bad, fmt.Sprintf("%d bytes in the tunnel, and IPv6 needs 1280 (RFC 8200): raise the uplink's MTU", mtu)}
	}
	for f, u := range h.outlook.Uplinks.All() {
		if r, ok := n.Ranges.Of(f).Get(); ok && r.Network.Contains(u.Address) {
			out = append(out, Finding{"overlay", Bad, fmt.Sprintf("the uplink's address %s lies in the overlay %s: choose another network", u.Address, r.Network)})
		}
	}
	if h.device == nil || h.outlook.Uplinks.IsZero() {
		return out
	}
	_, err := h.device.Changes(ctx, h.key, opt.Some(backend.Config{Port: network.Port(in), MTU: mtu, Addresses: opt.Dual[netip.Addr]{}}))
	return append(out, found("port", fmt.Sprintf("UDP %d can be had", network.Port(in)), err))
}
