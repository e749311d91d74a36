package node

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"

	"github.com/rs/zerolog"

	"github.com/loden-net/loden/backend"
	"github.com/loden-net/loden/config"
	"github.com/loden-net/loden/config/diff"
	"github.com/loden-net/loden/config/opt"
	"github.com/loden-net/loden/network"
	"github.com/loden-net/loden/network/firewall"
)

// host is this machine with the tools that list and change it.
type host struct {
	settings Settings
	log      zerolog.Logger
	device   *backend.Device
	firewall *firewall.Firewall
	kernel   kernel
	state    network.HostState // as observed last
	key      backend.PrivateKey
	cni      cniInstall
}

// close closes the tools. It may be called on a host whose device was never opened.
func (h *host) close() {
	if h.device == nil {
		return
	}
	if err := h.device.Close(); err != nil {
		h.log.Debug().Err(err).Msg("close interface")
	}
}

// preflight finds, before anything changes, an interface that cannot be made, an unreadable
// key, or a UDP port that belongs to another program.
func (h *host) preflight(ctx context.Context, known opt.Option[config.Network]) error {
	if err := h.device.Check(ctx); err != nil {
		return err
	}
	var err error
	if h.key, _, err = readKey(h.settings.StateDir); err != nil {
		return err
	}
	if n, ok := known.Get(); ok {
		return h.possible(ctx, n)
	}
	return nil
}

// readKey reads the private key, and reports whether it exists. Where there is no key yet,
// a key in memory stands in, since Run will make the file.
func readKey(stateDir string) (key backend.PrivateKey, exists bool, err error) {
	key, err = backend.ReadKey(stateDir)
	if errors.Is(err, fs.ErrNotExist) {
		key, err = backend.NewKey()
		return key, false, err
	}
	return key, true, err
}

// openKey reads the private key, or makes a new key.
func (h *host) openKey() error {
	key, created, err := backend.OpenKey(h.settings.StateDir)
	if err != nil {
		return err
	}
	if created {
		h.log.Info().Str("file", backend.KeyPath(h.settings.StateDir)).Msg("made a private key")
	}
	h.key = key
	return nil
}

// listenable reports whether the TCP address for status and metrics is free. Only a node
// that is about to run asks: the daemon at work holds the address. A node that stands by
// does not ask either, because its predecessor may hold the address still.
func (h *host) listenable() error {
	if h.settings.ListenAddress == "" || h.settings.StandBy {
		return nil
	}
	l, err := net.Listen("tcp", loopbackByDefault(h.settings.ListenAddress))
	if err != nil {
		return fmt.Errorf("listen on --listen-address %s: %w: choose a free address", h.settings.ListenAddress, err)
	}
	return l.Close()
}

// possible asks whether the interface and the rules can be made for a network at all, and
// whether the store stays within reach.
func (h *host) possible(ctx context.Context, n config.Network) error {
	_, noDevice := h.deviceChanges(ctx, n)
	return errors.Join(noDevice, h.rulesPossible(ctx, n), reachable(ctx, h.inputs(n), h.settings.Etcd))
}

// rulesPossible asks whether the rules can be made for a network.
func (h *host) rulesPossible(ctx context.Context, n config.Network) error {
	want, _ := network.Preflight(h.inputs(n))
	_, err := h.firewall.Changes(ctx, want.Firewall)
	return err
}

// deviceChanges lists the changes that an interface for a network needs, without a lease.
func (h *host) deviceChanges(ctx context.Context, n config.Network) ([]diff.Change, error) {
	want, _ := network.Preflight(h.inputs(n))
	return h.device.Changes(ctx, h.key, want.Device)
}

// inputs returns the inputs of a plan for a network, without leases.
func (h *host) inputs(n config.Network) network.Inputs {
	return network.Inputs{Network: n, Self: h.self(), HostState: h.state}
}

// self returns the node's own part of the inputs of a plan.
func (h *host) self() network.Self {
	return h.settings.self(h.key, h.device != nil && h.device.Kind() == backend.Kernel)
}

// reconciler returns a Reconciler of this machine.
func (h *host) reconciler(passed func(network.Status)) *network.Reconciler {
	return network.New(network.Options{
		Self: h.self(), Host: h.kernel, Passed: passed, Log: h.log,
		Parts: append(h.kernel.parts(h), network.Part{Name: "cni", Readiness: true, Changes: h.cniChanges}),
	})
}

// cniChanges is the part that installs the CNI plugins and their configuration. It is the
// last part, so that they appear when the data path stands.
func (h *host) cniChanges(ctx context.Context, want network.State) ([]diff.Change, error) {
	if want.Env.Present() {
		return h.cni.install(ctx)
	}
	return h.cni.remove(ctx)
}
