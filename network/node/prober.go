package node

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/rs/zerolog"
	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"github.com/loden-net/loden/backend"
	"github.com/loden-net/loden/config/opt"
	"github.com/loden-net/loden/config/wait"
	"github.com/loden-net/loden/network"
	"github.com/loden-net/loden/network/probe"
)

// prober ties the service by which nodes talk to each other to this node: it hands over the
// peers of the plan, and logs what the service finds.
type prober struct {
	*probe.Service
	interval  time.Duration // 0: the service is off
	iface     string
	device    deviceStatus
	heldNodes func() []string
	log       zerolog.Logger
	silent    wait.Signal // a path became silent

	mu     sync.Mutex // guards the fields below
	last   probeInputs
	rested time.Time // when many peers are planned again
}

// probeInputs is what a plan of the service is made of.
type probeInputs struct {
	addresses opt.Dual[netip.Addr]
	mtu       int
	peers     backend.Peers
	held      []string
}

// The plan of the probes is made of all peers. Where there are many, nodes that join one after the
// other do not each cost a new plan: a two-hundredth of the time goes to plans.
const (
	manyPeers = 1000
	planShare = 200
)

// newProber returns a prober that has sent no packet. answer answers the questions of peers.
func newProber(h *host, feed *leaseFeed, answer func(ctx context.Context, from wgtypes.Key, text string) ([]byte, error)) *prober {
	p := &prober{
		interval: h.settings.ProbeInterval, iface: h.settings.Interface, device: h.device, heldNodes: feed.held, log: h.log, silent: wait.NewSignal(),
	}
	p.Service = probe.New(probe.Options{
		Name: h.settings.Name, Public: h.key.Public(), Interval: h.settings.ProbeInterval, Log: h.log,
		Shared: h.key.Shared, Traffic: p.traffic, Answer: answer, Changed: p.changed,
	})
	return p
}

// follow hands the peers of a pass over, when they changed.
func (p *prober) follow(s network.Status) {
	if p.interval <= 0 {
		return
	}
	device, _ := s.State.Device.Get()
	in := probeInputs{addresses: device.Addresses, mtu: device.MTU, peers: device.Peers, held: p.heldNodes()}
	p.mu.Lock()
	defer p.mu.Unlock()
	if in.addresses == p.last.addresses && in.mtu == p.last.mtu && in.peers.Equal(p.last.peers) && slices.Equal(in.held, p.last.held) {
		return
	}
	began := time.Now()
	if in.peers.Len() > manyPeers && began.Before(p.rested) {
		return // a later pass, the resync at the latest, hands over what has changed
	}
	p.last = in
	p.Update(p.plan(in, s))
	p.rested = time.Now().Add(planShare * time.Since(began))
}

// plan returns the plan of the service. The overlay address of a peer's node is the first
// address of its subnet.
func (p *prober) plan(in probeInputs, s network.Status) probe.Plan {
	names := acceptedLeases(s.State, s.Inputs.Leases)
	out := probe.Plan{Interface: p.iface, MTU: in.mtu, Addresses: in.addresses, Peers: make([]probe.Peer, 0, in.peers.Len())}
	for peer := range in.peers.All() {
		name := names[peer.Key.String()].Node
		if name == "" {
			name = peer.Key.String()
		}
		out.Peers = append(out.Peers, probe.Peer{
			Key: peer.Key, Node: name, Held: slices.Contains(in.held, name),
			Addresses: opt.Map(peer.Subnets, func(_ opt.Family, s netip.Prefix) netip.Addr { return s.Addr() }),
		})
	}
	return out
}

// errSilentEngine says that the userspace engine gives no counters.
var errSilentEngine = errors.New("WireGuard does not answer")

// traffic reads what WireGuard counts for each peer.
func (p *prober) traffic(ctx context.Context) (map[wgtypes.Key]probe.Traffic, error) {
	status, err := p.device.Status(ctx)
	if err != nil {
		return nil, fmt.Errorf("read counters: %w", err)
	}
	if status.Silent || !status.Up {
		return nil, errSilentEngine
	}
	out := make(map[wgtypes.Key]probe.Traffic, len(status.Peers))
	for _, peer := range status.Peers {
		key, err := wgtypes.ParseKey(peer.PublicKey)
		if err != nil {
			return nil, fmt.Errorf("read counters: %w", err)
		}
		out[key] = probe.Traffic{Handshake: peer.Handshake, Received: peer.Received, Sent: peer.Sent}
	}
	return out, nil
}

// changed logs a change of a path: a path that broke or healed is a line each.
func (p *prober) changed(c probe.Change) {
	if c.From == probe.Unknown && c.Path.State == probe.Up {
		p.log.Debug().Str("node", c.Node).Stringer("family", c.Family).Msg("path is up")
		return
	}
	if c.Path.State == probe.Down {
		p.silent.Set()
	}
	e := p.log.Info()
	if c.Path.State != probe.Up {
		e = p.log.Warn()
	}
	e.Str("node", c.Node).Stringer("family", c.Family).Str("from", c.From).Str("state", c.Path.State).Str("reason", c.Path.Reason).Msg("path changed")
}
