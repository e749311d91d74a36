package node

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"time"

	"github.com/rs/zerolog"
	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"github.com/loden-net/loden/config"
	"github.com/loden-net/loden/config/opt"
	"github.com/loden-net/loden/config/wait"
	"github.com/loden-net/loden/network"
	"github.com/loden-net/loden/subnet"
	"github.com/loden-net/loden/subnet/etcd"
)

// leaseKeeper keeps this node's lease: it acquires a lease for each network document, renews
// it, writes new endpoints into it, and acquires it again when it is lost.
//
//	         network document            acquired
//	waiting ------------------> acquire ----------> hold --- new endpoints ---> hold
//	                              ^  ^--- refused ---' |
//	                              '-- lost, or another network document --'
//
// The store may be away, or may refuse, at any moment. Then the reconciler keeps the last
// lease and the last network, and the keeper tries again.
type leaseKeeper struct {
	name       string
	key        wgtypes.Key // public
	subnetFile string
	store      leaseStore
	reconciler *network.Reconciler
	possible   func(context.Context, config.Network) error // whether this host can serve a network
	observe    func(network.Inputs) (network.HostState, error)
	observed   network.HostState // the host before the first pass
	lost       func(error)       // is told why the lease in the store was lost; may be nil
	log        zerolog.Logger

	networks  chan config.Network        // holds the newest network that Run has not taken yet
	fatal     chan error                 // a network document that can never work, before any that does
	endpoints wait.Signal                // the endpoints that this node announces may have changed
	passed    wait.Signal                // the reconciler has made a pass
	listening opt.Option[config.Network] // before listen moved the port, until the store has the new port

	mu      sync.Mutex // guards trouble
	trouble string     // the last refusal of the store, with its remedy; "" when the lease is as wanted
}

// retryPause is the time between two attempts to acquire or to update the lease.
const retryPause = time.Second

func newLeaseKeeper(h *host, s leaseStore, r *network.Reconciler) *leaseKeeper {
	return &leaseKeeper{
		name: h.settings.Name, key: h.key.Public(), subnetFile: h.settings.SubnetFile, store: s, reconciler: r,
		possible: h.possible, observe: h.kernel.Observe, observed: h.state, log: h.log,
		networks: make(chan config.Network, 1), fatal: make(chan error, 1), endpoints: wait.NewSignal(), passed: wait.NewSignal(),
	}
}

// setNetwork hands over a network document. It does not block.
func (k *leaseKeeper) setNetwork(n config.Network) { replace(k.networks, n) }

// fail ends Run with err, if Run still waits for its first network. It does not block.
func (k *leaseKeeper) fail(err error) { replace(k.fatal, err) }

// Run keeps a lease until ctx ends, and then returns nil. It returns an error only while this
// node has never had a lease, neither from the store nor from disk.
func (k *leaseKeeper) Run(ctx context.Context) error {
	n, err := k.firstNetwork(ctx)
	if err != nil || ctx.Err() != nil {
		return err
	}
	for ctx.Err() == nil {
		c, err := k.acquire(ctx, n)
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil && !k.reconciler.Inputs().Lease.Present() && !passes(err):
			return err
		case err != nil:
			k.refused("the store gives this node no lease", err)
			k.listenAsBefore()
			n = k.pause(ctx, n)
		default:
			k.accepted()
			n = k.hold(ctx, c, n)
		}
	}
	return nil
}

// passes reports whether an error of acquire may pass by itself: etcd comes back, a subnet
// becomes free. The registry keeps the age of owner keys without a lease in memory, so only
// a node that waits can take such a subnet over after the lease's time to live.
func passes(err error) bool {
	return errors.Is(err, etcd.ErrUnavailable) || errors.Is(err, subnet.ErrOutOfSubnets)
}

// firstNetwork waits for a network document that works on this host: the UDP port, which
// the document may name, can belong to another program.
func (k *leaseKeeper) firstNetwork(ctx context.Context) (config.Network, error) {
	select {
	case <-ctx.Done():
		return config.Network{}, nil
	case err := <-k.fatal:
		return config.Network{}, err
	case n := <-k.networks:
		err := k.possible(ctx, n)
		if err != nil && k.reconciler.Inputs().Lease.Present() { // each pass tries, and reports its error
			k.log.Error().Err(err).Msg("this host cannot serve the network; trying with the lease on disk")
			err = nil
		}
		return n, err
	}
}

// acquire takes a lease for n with the endpoints of this moment, and hands both to the
// reconciler.
func (k *leaseKeeper) acquire(ctx context.Context, n config.Network) (claim, error) {
	in := k.announcing(n)
	want := subnet.Lease{Node: k.name, Key: k.key, Endpoints: network.Endpoints(in)}
	c, err := k.store.acquire(ctx, etcd.Want{Network: n, Lease: want, Prefer: preferred(in, k.subnetFile, k.log), Avoid: in.Avoid()})
	if err != nil {
		return nil, err
	}
	lease := c.Lease()
	if before, ok := in.Lease.Get(); ok && before.Subnets != lease.Subnets {
		k.log.Warn().Str("before", subnet.FormatKey(before.Subnets)).Str("now", subnet.FormatKey(lease.Subnets)).
			Msg("this node's subnets changed: restart the pods that run here, since they keep addresses of the old subnets")
	}
	k.log.Info().Str("subnets", subnet.FormatKey(lease.Subnets)).Msg("lease held")
	k.reconciler.Update(func(in *network.Inputs) { in.Network, in.Lease = n, opt.Some(lease) })
	k.listening = opt.None[config.Network]()
	return c, nil
}

// announcing returns the reconciler's inputs with n as the network, and with the host as it
// is now: its endpoints, and the foreign routes into n that its subnets must avoid. The
// routes to this node's own pods are none of these, so the lease that it had counts until
// there is another. When the kernel does not answer, the last observation stands.
func (k *leaseKeeper) announcing(n config.Network) network.Inputs {
	in := k.reconciler.Inputs()
	in.Network = n
	if in.Uplinks.IsZero() {
		in.HostState = k.observed
	}
	last := in
	if !last.Lease.Present() {
		last.Lease = opt.Some(subnet.Lease{Subnets: preferred(in, k.subnetFile, zerolog.Nop())})
	}
	if observed, err := k.observe(last); err == nil {
		in.HostState = observed
	}
	return in
}

// preferred returns the subnets that this node had: the subnets of its last lease, else the
// subnets in subnet.env.
func preferred(in network.Inputs, subnetFile string, log zerolog.Logger) opt.Dual[netip.Prefix] {
	if l, ok := in.Lease.Get(); ok {
		return l.Subnets
	}
	env, err := config.LoadEnv(subnetFile)
	if err != nil {
		log.Warn().Err(err).Msg("subnet file of an earlier run is partly unreadable; it will be written anew")
	}
	return env.Or(config.Env{}).Subnets
}

// hold keeps the claim until it is lost or the network changes, and returns the network to
// acquire a lease for next.
func (k *leaseKeeper) hold(ctx context.Context, c claim, n config.Network) config.Network {
	ctx, stop := context.WithCancel(ctx)
	ended := make(chan struct{})
	var lost error // written before ended is closed
	go func() {
		defer close(ended)
		lost = c.Keep(ctx)
	}()
	defer func() {
		stop()
		<-ended
	}()
	var retry <-chan time.Time // nil, and so never ready, until the store refuses an update
	for {
		select {
		case <-ctx.Done():
			return n
		case <-ended:
			if ctx.Err() == nil {
				k.log.Warn().Err(lost).Msg("lease lost; claiming the same subnets again")
				if k.lost != nil {
					k.lost(lost)
				}
			}
			return n
		case changed := <-k.networks:
			if changed != n {
				k.listen(ctx, changed)
				return changed
			}
			continue
		case <-k.endpoints.C():
		case <-retry:
		}
		retry = nil
		if err := k.announce(ctx, c); err != nil && ctx.Err() == nil {
			k.refused("the store does not take this node's new endpoints", err)
			retry = time.After(announceAgain(err))
		}
	}
}

// announce writes the endpoints of this moment into the lease.
func (k *leaseKeeper) announce(ctx context.Context, c claim) error {
	endpoints := network.Endpoints(k.reconciler.Inputs())
	lease := c.Lease()
	if endpoints == lease.Endpoints {
		k.accepted()
		return nil
	}
	lease.Endpoints = endpoints
	if err := c.Update(ctx, lease); err != nil {
		return fmt.Errorf("update lease: %w", err)
	}
	k.accepted()
	k.log.Info().Str("endpoints", fmt.Sprint(endpoints)).Msg("announced new endpoints")
	k.reconciler.Update(func(in *network.Inputs) { in.Lease = opt.Some(c.Lease()) })
	return nil
}

// pause waits for the next attempt and returns the network to acquire a lease for.
func (k *leaseKeeper) pause(ctx context.Context, n config.Network) config.Network {
	timer := time.NewTimer(retryPause)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	case changed := <-k.networks:
		return changed
	}
	return n
}

// refused notes a refusal for the report, and logs it when it differs from the last.
func (k *leaseKeeper) refused(what string, err error) {
	text := what + ": " + oneLine(err.Error())
	k.mu.Lock()
	known := k.trouble == text
	k.trouble = text
	k.mu.Unlock()
	if !known {
		k.log.Error().Err(err).Msg(what + "; trying again")
	}
}

// accepted notes that the lease in the store is as wanted.
func (k *leaseKeeper) accepted() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.trouble = ""
}

// refusal returns the last refusal of the store with its cause, or "".
func (k *leaseKeeper) refusal() string {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.trouble
}

// replace puts v into a channel of capacity 1, in place of the value that waits there.
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
