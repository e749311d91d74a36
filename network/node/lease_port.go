package node

import (
	"context"
	"errors"
	"time"

	"github.com/loden-net/loden/config"
	"github.com/loden-net/loden/config/opt"
	"github.com/loden-net/loden/network"
	"github.com/loden-net/loden/subnet/etcd"
)

const (
	// listenLimit bounds the time in which a node keeps its new port to itself until it
	// listens on the port. A pass takes about 0.1 s.
	listenLimit = 2 * time.Second

	// unansweredPause is the time until endpoints that etcd has not answered for are
	// published again. Such a request was cut with the connection whose address left the host.
	unansweredPause = 200 * time.Millisecond
)

// announceAgain returns the pause before endpoints are published again.
func announceAgain(err error) time.Duration {
	if errors.Is(err, etcd.ErrUnavailable) {
		return unansweredPause
	}
	return retryPause
}

// listen moves the interface to the UDP port of n, and blocks until it listens there, when the
// port is the only difference between n and the present network. A peer that reads the new
// port in the store, before the interface listens on it, would send into the void. The
// engine of Loden receives on the old port for a while longer, so no packet is lost in the
// other order.
func (k *leaseKeeper) listen(ctx context.Context, n config.Network) {
	in := k.reconciler.Inputs()
	moved := in
	moved.Network.Backend.ListenPort = n.Backend.ListenPort
	if moved.Network != n || network.Port(moved) == network.Port(in) {
		return
	}
	k.listening = opt.Some(in.Network)
	k.reconciler.Update(func(in *network.Inputs) { in.Network = n })
	ctx, cancel := context.WithTimeout(ctx, listenLimit)
	defer cancel()
	for {
		if s, ok := k.reconciler.Status(); ok && s.Err == nil && s.Inputs.Network == n {
			return
		}
		if !k.passed.On(ctx) {
			return
		}
	}
}

// listenAsBefore takes back what listen did: the store refuses the new port, so the peers
// go on sending to the old port.
func (k *leaseKeeper) listenAsBefore() {
	before, ok := k.listening.Get()
	if !ok {
		return
	}
	k.listening = opt.None[config.Network]()
	k.reconciler.Update(func(in *network.Inputs) { in.Network = before })
}
