package node

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"

	"github.com/rs/zerolog"

	"github.com/loden-net/loden/backend"
	"github.com/loden-net/loden/config"
	"github.com/loden-net/loden/config/diff"
	"github.com/loden-net/loden/config/opt"
	"github.com/loden-net/loden/config/set"
	"github.com/loden-net/loden/network"
	"github.com/loden-net/loden/network/firewall"
)

// host is this machine as the commands that look at it or change it need it.
type host struct {
	node     *config.Node
	log      zerolog.Logger
	device   *backend.Device
	firewall *firewall.Firewall
	outlook  network.Outlook
	key      backend.PrivateKey
	cni      cniInstall
}

// openHost opens what lists and changes this machine, and chooses its uplinks. It changes
// nothing. n is the network document as far as it is known. The caller closes the host;
// interface and rules outlive it.
func openHost(ctx context.Context, node *config.Node, n opt.Option[config.Network], log zerolog.Logger) (*host, error) {
	h, err := openTools(ctx, node, n, log)
	if err != nil {
		return nil, err
	}
	if h.outlook, err = h.look(); err != nil {
		h.close()
		return nil, err
	}
	return h, nil
}

// openTools opens what lists and changes this machine, and asks nothing else of it.
func openTools(ctx context.Context, node *config.Node, n opt.Option[config.Network], log zerolog.Logger) (*host, error) {
	h := &host{node: node, log: log}
	var err error
	if h.cni, err = newCNI(node); err != nil {
		return nil, err
	}
	h.device, err = backend.Open(backend.Options{Name: node.Interface, Engine: node.Engine, RunDir: node.RunDir, Log: log})
	if err != nil {
		return nil, err
	}
	h.firewall, err = firewall.Open(ctx, firewall.Options{
		Backend: node.Firewall, PreferNFTables: n.Or(config.Network{}).NFTables, Log: log,
	})
	if err != nil {
		return nil, errors.Join(err, h.device.Close())
	}
	return h, nil
}

// close lets go of what openHost opened.
func (h *host) close() {
	if err := h.device.Close(); err != nil {
		h.log.Debug().Err(err).Msg("close interface")
	}
}

// look chooses the uplinks from what the machine has now.
func (h *host) look() (network.Outlook, error) {
	reach := opt.None[netip.Addr]()
	if a, err := netip.ParseAddr(h.node.IfaceCanReach); err == nil {
		reach = opt.Some(a)
	}
	view, err := network.Look(h.node.Interface, reach)
	if err != nil {
		return network.Outlook{}, err
	}
	outlook, err := network.Survey(h.node, view)
	if err != nil {
		return outlook, err
	}
	outlook.Underlay, err = firewall.Underlay(outlook.Exits)
	return outlook, err
}

// preflight finds, before anything changes, what would stop the node from working: no way
// to make the interface, an unreadable key, or a UDP port that belongs to another program.
func (h *host) preflight(ctx context.Context, known opt.Option[config.Network]) error {
	if err := h.device.Check(ctx); err != nil {
		return err
	}
	key, err := backend.ReadKey(h.node.StateDir)
	if errors.Is(err, fs.ErrNotExist) { // run will make one; any will do here
		key, err = backend.NewKey()
	}
	if err != nil {
		return err
	}
	h.key = key
	if n, ok := known.Get(); ok {
		return h.possible(ctx, n)
	}
	return nil
}

// listenable reports whether the TCP address for status and metrics can be had. It is for
// one that is about to become the daemon: to anybody else the daemon at work is no obstacle.
func (h *host) listenable() error {
	if h.node.ListenAddress == "" || h.node.Wait { // the daemon before this one may have it still
		return nil
	}
	l, err := net.Listen("tcp", loopbackByDefault(h.node.ListenAddress))
	if err != nil {
		return fmt.Errorf("listen on --listen-address %s: %w: choose a free one", h.node.ListenAddress, err)
	}
	return l.Close()
}

// possible asks whether the interface and the rules can be made for a network at all. The
// subnets do not matter for that, so the first of each family stands in.
func (h *host) possible(ctx context.Context, n config.Network) error {
	in := network.Inputs{Network: n, Self: h.self(), Outlook: h.outlook}
	_, noDevice := h.device.Changes(ctx, h.key, opt.Some(backend.Config{Port: network.Port(in), MTU: network.MTU(in)}))
	scopes := opt.Map(n.Ranges, func(_ opt.Family, r config.Range) firewall.Scope {
		return firewall.Scope{Network: r.Network, Subnet: netip.PrefixFrom(r.SubnetMin, r.SubnetLen)}
	})
	_, noRules := h.firewall.Changes(ctx, in.Self.Policy.Config(h.node.Interface, scopes))
	return errors.Join(noDevice, noRules)
}

// self returns what the node knows of itself.
func (h *host) self() network.Self {
	excluded, _ := h.node.Excluded()       // checked by Validate
	value, mask, _ := h.node.ForeignMark() // checked by Validate
	return network.Self{
		Name: h.node.Name, Key: h.key.Public(), Port: uint16(h.node.ListenPort), Interface: h.node.Interface, // checked by Validate
		Kernel: h.device != nil && h.device.Kind() == backend.Kernel,
		Policy: firewall.Policy{
			Masq: h.node.IPMasq, IPv6Masq: firewall.IPv6Masq(h.node.IPv6Masq), Exclude: set.NewPrefixes(excluded...),
			Mark: firewall.Mark{Value: value, Mask: mask}, RandomFully: h.node.RandomFully, Forward: h.node.ForwardRules, Guard: firewall.Mode(h.node.Guard),
		},
	}
}

// reconciler returns one over this machine.
func (h *host) reconciler(passed func(network.Status)) *network.Reconciler {
	return network.New(network.Options{
		SubnetFile: h.node.SubnetFile, RunDir: h.node.RunDir,
		Device: h.device, Key: h.key, Firewall: h.firewall,
		Look: h.look, Self: h.self(), Passed: passed, Log: h.log,
		Promises: []network.Part{{Name: "cni", Promise: true, Changes: h.cniChanges}},
	})
}

// cniChanges is the part that installs the CNI plugins and their configuration: last, when
// the data path stands.
func (h *host) cniChanges(ctx context.Context, want network.State) ([]diff.Change, error) {
	if want.Env.Present() {
		return h.cni.install(ctx)
	}
	return h.cni.remove(ctx)
}
