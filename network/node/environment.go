package node

import (
	"context"

	"github.com/loden-net/loden/backend"
	"github.com/loden-net/loden/config"
	"github.com/loden-net/loden/config/opt"
	"github.com/loden-net/loden/network"
	"github.com/loden-net/loden/network/firewall"
	"github.com/loden-net/loden/subnet"
	"github.com/loden-net/loden/subnet/etcd"
)

// environment opens the store and the tools of a host. Run, Plan, Check and Down are its
// methods; tests put a store, a device, a firewall and a kernel in memory in its place.
type environment struct {
	store    func(context.Context, Settings) (store, error)
	device   func(Settings) (*backend.Device, error)
	firewall func(ctx context.Context, s Settings, preferNFTables bool) (*firewall.Firewall, error)
	kernel   func(Settings) kernel
}

// kernel is the part of a host that is neither device nor firewall: its links, addresses,
// routes and settings.
type kernel interface {
	Observe(last network.Inputs) (network.HostState, error)
	Expire()
	parts(h *host) []network.Part
	Watch(ctx context.Context, notify func()) error
}

// realEnvironment is etcd and this machine.
func realEnvironment() environment {
	return environment{
		store: func(ctx context.Context, s Settings) (store, error) {
			r, err := etcd.Open(ctx, s.Store(), s.Log)
			if err != nil {
				return nil, err
			}
			return registry{r}, nil
		},
		device: func(s Settings) (*backend.Device, error) {
			return backend.Open(backend.Options{Name: s.Interface, Engine: s.Engine, NoOffload: s.NoOffload, RunDir: s.RunDir, Log: s.Log})
		},
		firewall: func(ctx context.Context, s Settings, preferNFTables bool) (*firewall.Firewall, error) {
			return firewall.Open(ctx, firewall.Options{Backend: s.Firewall, PreferNFTables: preferNFTables, Interface: s.Interface, Log: s.Log})
		},
		kernel: func(s Settings) kernel { return machine{network.NewObserver(s.Interface, s.Uplinks)} },
	}
}

// machine is the kernel of this host.
type machine struct{ *network.Observer }

func (m machine) parts(h *host) []network.Part {
	return network.Parts(network.PartOptions{
		SubnetFile: h.settings.SubnetFile, RunDir: h.settings.RunDir, Interface: h.settings.Interface,
		Device: h.device, Key: h.key, Firewall: h.firewall, Observer: m.Observer,
	})
}

// openHost opens the tools and chooses the uplinks. It changes nothing. n is the network
// document as far as it is known. The caller closes the host; interface and rules outlive it.
func (e environment) openHost(ctx context.Context, s Settings, n opt.Option[config.Network]) (*host, error) {
	h, err := e.openTools(ctx, s, n)
	if err != nil {
		return nil, err
	}
	last := network.Inputs{Network: n.Or(config.Network{}), Lease: opt.Some(lastLease(s))}
	if h.state, err = h.kernel.Observe(last); err != nil {
		h.close()
		return nil, err
	}
	return h, nil
}

// lastLease returns this node's lease of an earlier run, as far as subnet.env and the leases
// on disk remember it: the subnets of its pods, and the endpoints that it announced.
func lastLease(s Settings) subnet.Lease {
	var last subnet.Lease
	if key, exists, err := readKey(s.StateDir); exists && err == nil {
		if saved, _, err := loadSaved(s.StateDir, s.Name, key.Public()); err == nil {
			last = saved.Self
		}
	}
	if env, err := config.LoadEnv(s.SubnetFile); err == nil && env.Present() {
		last.Subnets = env.Or(config.Env{}).Subnets
	}
	return last
}

// openTools opens the tools alone.
func (e environment) openTools(ctx context.Context, s Settings, n opt.Option[config.Network]) (h *host, err error) {
	h = &host{settings: s, log: s.Log, kernel: e.kernel(s)}
	if h.cni, err = newCNI(s); err != nil {
		return nil, err
	}
	if h.device, err = e.device(s); err != nil {
		return nil, err
	}
	if h.firewall, err = e.firewall(ctx, s, preferNFTables(n)); err != nil {
		h.close()
		return nil, err
	}
	return h, nil
}

// preferNFTables reports whether the network document asks for nftables.
func preferNFTables(n opt.Option[config.Network]) bool { return n.Or(config.Network{}).NFTables }
