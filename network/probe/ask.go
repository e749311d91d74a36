package probe

import (
	"cmp"
	"context"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/loden-net/loden/config/opt"
	"github.com/loden-net/loden/config/wait"
)

// Sizes of the headers outside a datagram, bytes.
const (
	udpHeader  = 8
	ipv4Header = 20
	ipv6Header = 40
)

// headers returns the bytes of an IP packet that are not the datagram's.
func headers(f opt.Family) int {
	if f == opt.V6 {
		return ipv6Header + udpHeader
	}
	return ipv4Header + udpHeader
}

// resize sets the size of large questions to the tunnel's MTU. A change begins the search of the
// path's MTU anew.
func (p *path) resize(f opt.Family, mtu int) {
	if mtu <= headers(f)+sealSize+headSize {
		mtu = 0
	}
	if p.large.full != mtu {
		p.large.reset(mtu)
	}
}

// The bounds of the time between two rounds of questions.
const (
	minPause = 20 * time.Millisecond
	maxPause = 5 * time.Second
)

// candidate is a path whose next question is due.
type candidate struct {
	n   *neighbour
	f   opt.Family
	p   *path
	due time.Time
}

// askDue asks the questions that are due, within the budget, and returns the time until the
// next is due. Paths that changed go first, then the paths that have waited for longest.
func (s *Service) askDue(now time.Time) time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	members, next := s.turns.turn(now)
	next = earliest(latest(next, now), now.Add(maxPause))
	var due []candidate
	for _, n := range members {
		for f, p := range n.paths.All() {
			if !s.conns.Of(f).Present() {
				continue
			}
			at := p.due()
			if at.After(now) {
				next = earliest(next, at)
				continue
			}
			due = append(due, candidate{n, f, p, at})
		}
	}
	slices.SortFunc(due, func(a, b candidate) int {
		if sa, sb := a.p.suspect(), b.p.suspect(); sa != sb {
			return map[bool]int{true: -1, false: 1}[sa]
		}
		return cmp.Or(a.due.Compare(b.due), slices.Compare(a.n.Key[:], b.n.Key[:]))
	})
	for _, c := range due {
		if !s.budget.take(now) {
			next = earliest(next, now.Add(s.budget.wait(now)))
			break
		}
		s.askPath(c, now)
		next = earliest(next, c.p.due())
	}
	return max(next.Sub(now), minPause)
}

func earliest(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

// askPath judges a path by what came back so far, and asks the next question.
func (s *Service) askPath(c candidate, now time.Time) {
	s.judge(c.n, c.f, now)
	if last, ok := c.p.newest(); ok && !last.proof {
		c.n.call() // the other family is of the same tunnel
	}
	keys, err := c.n.keys()
	if err != nil {
		c.p.verdict.Reason = err.Error() // a key with which no handshake succeeds either
		return
	}
	size := c.p.size(now)
	datagram, id := keys.seal(c.p.view(now, message{kind: ask}).encode(size - headers(c.f) - sealSize))
	c.p.ask(now, id, size, 0.95+rand.Float64()/10)
	s.counts.Asked++
	c.p.fault = ""
	to, _ := c.n.Addresses.Of(c.f).Get()
	conn, _ := s.conns.Of(c.f).Get()
	if err := conn.Send(to, datagram); err != nil {
		c.p.fault = err.Error()
	}
}

// judge judges a path anew, and tells of a change.
func (s *Service) judge(n *neighbour, f opt.Family, now time.Time) {
	p, ok := n.paths.Of(f).Get()
	if !ok {
		return
	}
	before := p.verdict.State
	if n.judge(f, now) && s.o.Changed != nil {
		s.o.Changed(Change{Peer: n.Key, Node: n.Node, Family: f, From: before, Path: p.result(now)})
	}
}

const (
	suspectSample = 3 * time.Second // between two looks at the counters while a path is suspect
	trafficLimit  = 4 * time.Second
)

// sampleTraffic looks at WireGuard's counters in every interval, and more often while a path
// is suspect, until ctx ends.
func (s *Service) sampleTraffic(ctx context.Context) error {
	var last time.Time
	for {
		if time.Since(last) >= s.samplePeriod() || s.suspicious() {
			last = time.Now()
			s.takeTraffic(ctx)
		}
		if !wait.For(ctx, min(suspectSample, s.o.Interval)) {
			return nil
		}
	}
}

// perPeer is the time between two looks at the counters for each peer, above everyPeer peers: a
// look costs about 5 microseconds for each.
const perPeer = 30 * time.Millisecond

// samplePeriod returns the time between two looks at the counters.
func (s *Service) samplePeriod() time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.turns.samples() {
		return max(s.o.Interval, time.Duration(len(s.turns.all))*perPeer)
	}
	return s.o.Interval
}

// suspicious reports whether the counters are needed soon. Where peers take turns they are too
// many for that.
func (s *Service) suspicious() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.turns.samples() {
		return false
	}
	for _, n := range s.peers {
		for _, p := range n.paths.All() {
			if p.suspect() {
				return true
			}
		}
	}
	return false
}

// takeTraffic adds a sample of the counters to every peer.
func (s *Service) takeTraffic(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, trafficLimit)
	defer cancel()
	counters, err := s.o.Traffic(ctx)
	period, now := s.samplePeriod(), time.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	for key, n := range s.peers {
		c, known := counters[key]
		n.blind, n.period = err != nil || !known, period
		if n.blind {
			continue
		}
		n.traffic = n.traffic.add(now, c)
		if n.traffic.oneSided() {
			s.turns.call(n, now)
			n.call()
		}
		for f, p := range n.paths.All() {
			if p.mute { // the counters are all there is
				s.judge(n, f, now)
			}
		}
	}
}

// call asks some questions at once on each path that is thought to be well.
func (n *neighbour) call() {
	for _, p := range n.paths.All() {
		if last, ok := p.newest(); ok && last.proof && !p.unsettled() && p.calls == 0 {
			p.calls = settledLen
		}
	}
}
