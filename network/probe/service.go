package probe

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"sync"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/sync/errgroup"
	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"github.com/loden-net/loden/config/opt"
	"github.com/loden-net/loden/config/wait"
)

// Options are the seams of a Service. All but Answer and Changed must be set.
type Options struct {
	Name     string        // of this node
	Public   wgtypes.Key   // of this node
	Interval time.Duration // between two questions on a path; 0: the service is off, sends and answers no datagram
	Log      zerolog.Logger

	// Shared returns the X25519 of this node's private key and the public key of a peer.
	Shared func(peer wgtypes.Key) ([32]byte, error)
	// Traffic returns what WireGuard counts for every peer. It may take some seconds.
	Traffic func(ctx context.Context) (map[wgtypes.Key]Traffic, error)
	// Answer answers a question in words of a peer; nil refuses all. ctx ends after some seconds.
	Answer func(ctx context.Context, peer wgtypes.Key, question string) ([]byte, error)
	// Changed is called for every change of a state; it must not block. It may be nil.
	Changed func(Change)

	open func(iface string, addr netip.Addr) (conn, error) // nil: openSocket
}

// Change is a change of the state of a path.
type Change struct {
	Peer   wgtypes.Key
	Node   string // name of the peer's node
	Family opt.Family
	From   string // the state before
	Path   Path
}

// Plan is the part of the node's plan that the service needs. The zero value has no peer.
type Plan struct {
	Interface string // the tunnel's
	MTU       int    // of the tunnel, bytes
	Addresses opt.Dual[netip.Addr]
	Peers     []Peer
}

// Peer is a node whose lease the plan accepted.
type Peer struct {
	Key       wgtypes.Key
	Node      string
	Addresses opt.Dual[netip.Addr] // of the overlay, the node's own
	Held      bool                 // its lease vanished in a mass removal
}

// Service talks to the nodes of the plan. Make it with New; its methods may be called from
// several goroutines.
type Service struct {
	o    Options
	wake wait.Signal

	making sync.WaitGroup // of answers to questions in words

	mu              sync.Mutex // guards the fields below
	plan            Plan
	fresh           bool   // the plan was not taken up yet
	fault           string // why the node cannot probe; "" for no fault
	failed          time.Time
	conns           opt.Dual[conn]
	peers           map[wgtypes.Key]*neighbour
	at              map[netip.Addr]*neighbour // by overlay address
	turns           rotation
	budget          bucket // of questions
	replies, pieces bucket // to all peers
	counts          Counts
	store           answers
	wanted          map[uint64]*download // by the id of the request
}

// Counts are the datagrams of a service since it was made.
type Counts struct {
	Asked, Replied, Received uint64
	Forged                   uint64 // datagrams of peers' addresses that no peer sealed for this node
	Unknown                  uint64 // datagrams of other addresses
	Limited                  uint64 // questions beyond the limits, not answered
}

// neighbour is a peer with its keys and its limits.
type neighbour struct {
	Peer
	subject
	keys func() (seals, error)

	member bool      // of the rotation
	joined time.Time // when it became a member last
	cold   bool      // it had no live session then

	repliesTo, piecesTo bucket
}

// New returns a Service that has sent no datagram. It needs no Close: its sockets live as
// long as Run.
func New(o Options) *Service {
	if o.open == nil {
		o.open = openSocket
	}
	return &Service{
		o: o, wake: wait.NewSignal(), peers: map[wgtypes.Key]*neighbour{}, at: map[netip.Addr]*neighbour{},
		replies: bucket{rate: replyRateAll, burst: replyBurstAll}, pieces: bucket{rate: pieceRateAll, burst: pieceBurstAll},
		store: answers{}, wanted: map[uint64]*download{},
	}
}

// Update hands over the newest plan. It never blocks for long.
func (s *Service) Update(p Plan) {
	s.mu.Lock()
	s.plan, s.fresh = p, true
	s.mu.Unlock()
	s.wake.Set()
}

// Path returns the judgement of the path to a peer; false when there is no path in this
// family.
func (s *Service) Path(peer wgtypes.Key, f opt.Family) (Path, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n, ok := s.peers[peer]
	if !ok {
		return Path{}, false
	}
	p, ok := n.paths.Of(f).Get()
	if !ok {
		return Path{}, false
	}
	out := p.result(time.Now())
	if len(p.asked) == 0 && s.fault != "" {
		out.Reason = s.fault
	}
	return out, true
}

// Counts returns the counters of the service.
func (s *Service) Counts() Counts {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.counts
}

// Run probes until ctx ends; then it closes its sockets and returns nil.
func (s *Service) Run(ctx context.Context) error {
	if s.o.Interval <= 0 {
		<-ctx.Done()
		return nil
	}
	defer s.making.Wait()
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return s.sampleTraffic(ctx) })
	g.Go(func() error {
		defer s.closeConns()
		for {
			s.takeUp(ctx, g)
			next := s.askDue(time.Now())
			if !s.await(ctx, next) {
				return nil
			}
		}
	})
	return g.Wait()
}

// await waits for a time, for another plan or for a peer that calls. It reports whether ctx
// is still alive.
func (s *Service) await(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-s.wake.C():
	case <-timer.C:
	}
	return true
}

// reopenPause is the time between two attempts to open the sockets.
const reopenPause = 3 * time.Second

// takeUp follows the plan: it opens the sockets, and adds and removes peers.
func (s *Service) takeUp(ctx context.Context, g *errgroup.Group) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	if s.fresh {
		s.fresh = false
		s.follow(now)
	}
	for f, addr := range s.plan.Addresses.All() {
		c, open := s.conns.Of(f).Get()
		if open && !c.Stale() || now.Sub(s.failed) < reopenPause {
			continue
		}
		if open {
			_ = c.Close() // it cannot be used any more
			s.conns = s.conns.Without(f)
		}
		c, err := s.o.open(s.plan.Interface, addr)
		if err != nil {
			s.fail(now, err)
			continue
		}
		s.fault, s.conns = "", s.conns.With(f, c)
		g.Go(func() error { return s.receive(ctx, f, c) })
	}
}

// fail notes that the sockets cannot be opened, and logs a new reason.
func (s *Service) fail(now time.Time, err error) {
	s.failed = now
	if text := "this node cannot probe: " + err.Error(); text != s.fault {
		s.fault = text
		s.o.Log.Warn().Err(err).Msg("paths to peers not probed; trying again")
	}
}

// closeConns closes the sockets, which ends their readers.
func (s *Service) closeConns() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range s.conns.All() {
		_ = c.Close() // the node ends
	}
	s.conns = opt.Dual[conn]{}
}

// follow takes up the peers of the plan. A peer that stays keeps its history.
func (s *Service) follow(now time.Time) {
	before := s.peers
	s.peers, s.at = make(map[wgtypes.Key]*neighbour, len(s.plan.Peers)), make(map[netip.Addr]*neighbour, 2*len(s.plan.Peers))
	for _, p := range s.plan.Peers {
		n, known := before[p.Key]
		if !known {
			n = s.newNeighbour(p)
		}
		s.peers[p.Key] = n
		paths := opt.Map(p.Addresses, func(f opt.Family, a netip.Addr) *path {
			if had, ok := n.paths.Of(f).Get(); ok && n.Addresses.Of(f) == opt.Some(a) {
				had.resize(f, s.plan.MTU)
				return had
			}
			fresh := newPath(s.o.Interval, now.Add(rand.N(firstSpread)))
			fresh.resize(f, s.plan.MTU)
			return fresh
		})
		n.Peer, n.name, n.held, n.paths = p, p.Node, p.Held, paths
		for f, a := range p.Addresses.All() {
			if !s.plan.Addresses.Of(f).Present() {
				n.paths = n.paths.Without(f)
				continue
			}
			s.at[a] = n
		}
	}
	s.turns.set(s.peers)
	if s.turns.samples() {
		s.budget.rate, s.budget.burst = sampleRate, sampleBurst
	} else {
		s.budget.rate, s.budget.burst = fullRate, fullBurst
	}
	for f, c := range s.conns.All() {
		if !s.plan.Addresses.Of(f).Present() {
			_ = c.Close() // the node has no address of this family any more
			s.conns = s.conns.Without(f)
		}
	}
}

// firstSpread spreads the first questions of many new peers.
const firstSpread = 800 * time.Millisecond

func (s *Service) newNeighbour(p Peer) *neighbour {
	return &neighbour{
		subject: subject{own: s.o.Name},
		keys: sync.OnceValues(func() (seals, error) {
			shared, err := s.o.Shared(p.Key)
			if err != nil {
				return seals{}, fmt.Errorf("agree on a key with %s: %w", p.Node, err)
			}
			return newSeals(shared, s.o.Public, p.Key)
		}),
		repliesTo: bucket{rate: replyRate, burst: replyBurst}, piecesTo: bucket{rate: pieceRate, burst: pieceBurst},
	}
}

// errNoPeer says that a key belongs to no peer of the plan.
var errNoPeer = errors.New("this node has no such peer")
