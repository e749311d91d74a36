package node

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"time"

	"github.com/rs/zerolog"

	"github.com/loden-net/loden/config"
	"github.com/loden-net/loden/config/opt"
	"github.com/loden-net/loden/network"
	"github.com/loden-net/loden/subnet"
	"github.com/loden-net/loden/subnet/etcd"
)

// daemon ties the store, the reconciler and the machine together. Its methods are the
// long-lived goroutines of `loden run`.
type daemon struct {
	version    string
	node       *config.Node
	host       *host
	registry   *etcd.Registry
	reconciler *network.Reconciler
	log        zerolog.Logger

	networks  chan config.Network // holds the newest network that keepLease has not seen
	endpoints chan struct{}       // holds one wake-up: what this node announces may have changed
	fatal     chan error          // a network document that can never work, before the first one that does

	once      sync.Once
	firstPass chan struct{} // closed after the first complete pass

	wire  *sampler
	cache *cache // leases on disk, and the hold on mass removals
}

func newDaemon(node *config.Node, h *host, registry *etcd.Registry, log zerolog.Logger) *daemon {
	d := &daemon{
		node: node, host: h, registry: registry, log: log,
		networks: make(chan config.Network, 1), endpoints: make(chan struct{}, 1), fatal: make(chan error, 1),
		firstPass: make(chan struct{}), wire: &sampler{every: node.WireSample, log: log},
	}
	d.reconciler = h.reconciler(d.passed)
	d.cache = newCache(node, d.reconciler, log)
	return d
}

// passed follows the reconciler: the first complete pass makes the node ready, and changed
// uplinks change what the node announces.
func (d *daemon) passed(s network.Status) {
	if s.Complete {
		d.once.Do(func() {
			d.log.Info().Dur("took", s.Took).Msg("the data path is in place")
			d.warnOfRivals()
			close(d.firstPass)
		})
	}
	own, ok := s.Inputs.Lease.Get()
	if ok && own.Endpoints != network.Endpoints(s.Inputs) {
		wake(d.endpoints)
	}
}

// warnOfRivals says when a container runtime will take another CNI configuration than ours.
func (d *daemon) warnOfRivals() {
	rivals, err := d.host.cni.rivals()
	if err != nil {
		d.log.Warn().Err(err).Msg("CNI configurations not compared")
	}
	for _, path := range rivals {
		d.log.Warn().Str("file", path).Msg("this CNI configuration sorts before ours, so container runtimes take it: remove it to use loden")
	}
}

func wake(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// networkChanged takes over a network document, or says why there is none. A document that
// is wrong ends the daemon while it has never had a right one; later, the last right one
// stands.
func (d *daemon) networkChanged(doc etcd.Document, err error) {
	switch {
	case err == nil:
		d.log.Info().Int64("revision", doc.Revision).Msg("network document read")
		d.cache.setDocument(doc.Data)
		replace(d.networks, doc.Network)
	case errors.Is(err, etcd.ErrNoNetwork), errors.Is(err, etcd.ErrUnavailable):
		d.log.Warn().Err(err).Msg("waiting")
	case d.reconciler.Inputs().Network == (config.Network{}):
		replace(d.fatal, err)
	default:
		d.log.Error().Err(err).Msg("network document is wrong; the last right one stands")
	}
}

// replace puts v into a channel of one, in place of what may wait there.
func replace[T any](c chan T, v T) {
	for {
		select {
		case c <- v:
			return
		default:
		}
		select {
		case <-c:
		default:
		}
	}
}

// keepLease has a lease as long as the daemon runs: it acquires one for each network
// document, keeps it, and acquires again when it is lost. It returns nil when ctx ends, and
// an error only before the first lease.
func (d *daemon) keepLease(ctx context.Context) error {
	n, err := d.firstNetwork(ctx)
	if err != nil || ctx.Err() != nil {
		return err
	}
	said := "" // so that waiting is said once, and again when its reason changes
	for first := true; ctx.Err() == nil; {
		claim, err := d.acquire(ctx, n)
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil && first && !errors.Is(err, etcd.ErrUnavailable):
			return err
		case err != nil:
			if err.Error() != said {
				d.log.Error().Err(err).Msg("no lease; trying again")
				said = err.Error()
			}
			n = d.pause(ctx, n)
		default:
			first, said = false, ""
			n = d.hold(ctx, claim, n)
		}
	}
	return nil
}

// firstNetwork waits for a network document that works on this host: the port, which only
// the document may say, can belong to another program.
func (d *daemon) firstNetwork(ctx context.Context) (config.Network, error) {
	select {
	case <-ctx.Done():
		return config.Network{}, nil
	case err := <-d.fatal:
		return config.Network{}, err
	case n := <-d.networks:
		return n, d.host.possible(ctx, n)
	}
}

// acquire takes a lease for n with what this node announces now, and hands it to the
// reconciler.
func (d *daemon) acquire(ctx context.Context, n config.Network) (*etcd.Claim, error) {
	in := d.announcing(n)
	want := subnet.Lease{Node: d.node.Name, Key: d.host.key.Public(), Endpoints: network.Endpoints(in)}
	claim, err := d.registry.Acquire(ctx, n, want, d.preferred(in))
	if err != nil {
		return nil, err
	}
	lease := claim.Lease()
	if before, ok := in.Lease.Get(); ok && before.Subnets != lease.Subnets {
		d.log.Warn().Str("before", subnet.FormatKey(before.Subnets)).Str("now", subnet.FormatKey(lease.Subnets)).
			Msg("this node's subnets changed: pods that run keep addresses of the old ones until they are restarted")
	}
	d.log.Info().Str("subnets", subnet.FormatKey(lease.Subnets)).Msg("lease held")
	d.reconciler.Update(func(in *network.Inputs) {
		in.Network, in.Lease = n, opt.Some(lease)
	})
	return claim, nil
}

// announcing returns the inputs with n as the network and uplinks that are known.
func (d *daemon) announcing(n config.Network) network.Inputs {
	in := d.reconciler.Inputs()
	in.Network = n
	if in.Uplinks.IsZero() {
		in.Outlook = d.host.outlook
	}
	return in
}

// preferred returns the subnets that this node had: those of its last lease, else those in
// subnet.env, else those on disk.
func (d *daemon) preferred(in network.Inputs) opt.Dual[netip.Prefix] {
	if l, ok := in.Lease.Get(); ok {
		return l.Subnets
	}
	env, err := config.LoadEnv(d.node.SubnetFile)
	if err != nil {
		d.log.Warn().Err(err).Msg("subnet file of an earlier run is partly unreadable; it will be written anew")
	}
	return env.Or(config.Env{}).Subnets
}

// hold keeps the claim until it is lost or the network changes, and returns the network to
// acquire a lease for next.
func (d *daemon) hold(ctx context.Context, claim *etcd.Claim, n config.Network) config.Network {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	lost := make(chan error, 1)
	go func() { lost <- claim.Keep(ctx) }()
	defer func() { stop(); <-lost }()
	for {
		select {
		case <-ctx.Done():
			return n
		case err := <-lost:
			lost <- err // for the deferred wait
			if ctx.Err() == nil {
				d.log.Warn().Err(err).Msg("lease lost; claiming the same subnets again")
			}
			return n
		case changed := <-d.networks:
			if changed != n {
				return changed
			}
		case <-d.endpoints:
			if err := d.announce(ctx, claim); err != nil {
				d.log.Error().Err(err).Msg("announce new endpoints")
				return d.pause(ctx, n)
			}
		}
	}
}

// announce writes what this node announces now into its lease.
func (d *daemon) announce(ctx context.Context, claim *etcd.Claim) error {
	endpoints := network.Endpoints(d.reconciler.Inputs())
	if endpoints == claim.Lease().Endpoints {
		return nil
	}
	lease := claim.Lease()
	lease.Endpoints = endpoints
	if err := claim.Update(ctx, lease); err != nil {
		return fmt.Errorf("update lease: %w", err)
	}
	d.log.Info().Str("endpoints", fmt.Sprint(endpoints)).Msg("announced new endpoints")
	d.reconciler.Update(func(in *network.Inputs) { in.Lease = opt.Some(claim.Lease()) })
	return nil
}

// retryPause is how long to wait between attempts to get a lease.
const retryPause = time.Second

// pause waits and returns the network to go on with.
func (d *daemon) pause(ctx context.Context, n config.Network) config.Network {
	timer := time.NewTimer(retryPause)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	case changed := <-d.networks:
		return changed
	}
	return n
}
