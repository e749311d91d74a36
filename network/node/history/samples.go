package history

import (
	"math"
	"slices"
	"sync"
	"time"

	"github.com/loden-net/loden/config/opt"
)

// The size of the history. With up to manyPeers peers an hour in steps of fineStep takes
// 360 * 9 * 2 bytes for each peer, 6.6 MB for 1,024 peers. Above, the hour has steps of
// coarseStep: 60 * 9 * 2 bytes for each peer, 10.8 MB for maxPeers peers.
const (
	span       = time.Hour
	fineStep   = 10 * time.Second
	coarseStep = time.Minute
	manyPeers  = 1024
	maxPeers   = 10_000
)

// Sample is the state of a peer at a moment. NaN stands for a number that is not known.
type Sample struct {
	Peer      string          // public key
	Paths     opt.Dual[Probe] // by family of the overlay
	Received  float64         // bytes per second
	Sent      float64         // bytes per second
	Handshake float64         // seconds since the last handshake
}

// Probe is the result of the probes of a path.
type Probe struct {
	RTT50, RTT99 float64 // seconds
	Loss         float64 // 0..1
}

// The columns of a peer's samples; a family has rtt50Column, rtt99Column and lossColumn,
// IPv6 behind IPv4.
const (
	receivedColumn = iota
	sentColumn
	handshakeColumn
	rtt50Column
	rtt99Column
	lossColumn
	columns = lossColumn + 1 + 3
)

// column returns the column of IPv4 for IPv4, and its twin for IPv6.
func column(f opt.Family, v4 int) int { return v4 + 3*int(f) }

// row is the samples of a peer at a moment.
type row [columns]packed

// Samples is an hour of samples of every peer. Make it with NewSamples; it is safe for
// concurrent use.
type Samples struct {
	mu    sync.Mutex // guards the fields below
	step  time.Duration
	times []int64          // Unix seconds of the moments, oldest first; at most span/step
	peers map[string][]row // as long as times, of the peers that have a sample in times
}

// NewSamples returns an empty history.
func NewSamples() *Samples { return &Samples{step: fineStep, peers: map[string][]row{}} }

// Step returns the time between two samples. It grows once, when there are many peers.
func (s *Samples) Step() time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.step
}

// Add appends the samples of a moment. Samples of more than 10,000 peers are left out, and so
// is a second moment in a second. After a clock that was set back the history begins anew.
func (s *Samples) Add(at time.Time, samples []Sample) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if n := len(s.times); n > 0 && at.Unix() == s.times[n-1] {
		return
	} else if n > 0 && at.Unix() < s.times[n-1] {
		s.times, s.peers = nil, map[string][]row{}
	}
	if s.step == fineStep && len(samples) > manyPeers {
		s.coarsenLocked()
	}
	s.appendLocked(at)
	now := len(s.times) - 1
	for _, p := range samples {
		rows, ok := s.peers[p.Peer]
		if !ok && len(s.peers) >= maxPeers {
			continue
		}
		if !ok {
			rows = make([]row, now+1, s.slots())
		}
		rows[now] = p.row()
		s.peers[p.Peer] = rows
	}
}

// slots returns the number of moments that are kept.
func (s *Samples) slots() int { return int(span / s.step) }

// appendLocked begins a moment, in which no peer has a sample yet. It forgets the oldest
// moment when the history is full, and each peer whose last sample was of that moment.
func (s *Samples) appendLocked(at time.Time) {
	full := len(s.times) == s.slots()
	if full {
		s.times = append(s.times[:0], s.times[1:]...)
	}
	s.times = append(s.times, at.Unix())
	for peer, rows := range s.peers {
		if full {
			rows = append(rows[:0], rows[1:]...)
		}
		if !slices.ContainsFunc(rows, func(r row) bool { return r != row{} }) {
			delete(s.peers, peer)
			continue
		}
		s.peers[peer] = append(rows, row{})
	}
}

// coarsenLocked goes over to the longer step: of the moments of each step the last remains.
func (s *Samples) coarsenLocked() {
	ratio := int(coarseStep / fineStep)
	s.step = coarseStep
	var kept []int
	for i := len(s.times) - 1; i >= 0; i -= ratio {
		kept = append(kept, i)
	}
	slices.Reverse(kept)
	s.times = pick(s.times, kept, s.slots())
	for peer, rows := range s.peers {
		s.peers[peer] = pick(rows, kept, s.slots())
	}
}

// pick returns the elements at some places, in a slice of a capacity.
func pick[T any](from []T, places []int, capacity int) []T {
	out := make([]T, 0, capacity)
	for _, i := range places {
		out = append(out, from[i])
	}
	return out
}

// row packs a sample.
func (p Sample) row() row {
	r := row{receivedColumn: pack(p.Received), sentColumn: pack(p.Sent), handshakeColumn: pack(p.Handshake)}
	for f, probe := range p.Paths.All() {
		r[column(f, rtt50Column)] = pack(probe.RTT50)
		r[column(f, rtt99Column)] = pack(probe.RTT99)
		r[column(f, lossColumn)] = pack(probe.Loss)
	}
	return r
}

// Series is the history of a peer; every slice is as long as Times. Null stands for a number
// that was not measured.
type Series struct {
	Step      int64                `json:"stepSeconds"`
	Times     []int64              `json:"times"` // Unix seconds
	Received  []Number             `json:"receivedBytesPerSecond"`
	Sent      []Number             `json:"sentBytesPerSecond"`
	Handshake []Number             `json:"handshakeAgeSeconds"`
	Paths     opt.Dual[PathSeries] `json:"paths"`
}

// PathSeries is the part of a Series that belongs to a family.
type PathSeries struct {
	RTT50 []Number `json:"rttP50Seconds"`
	RTT99 []Number `json:"rttP99Seconds"`
	Loss  []Number `json:"loss"` // 0..1
}

// Of returns the history of a peer, by its public key; false for a peer without a sample in
// the last hour. A family without a sample is absent.
func (s *Samples) Of(peer string) (Series, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	rows, ok := s.peers[peer]
	if !ok {
		return Series{}, false
	}
	numbers := func(c int) []Number {
		out := make([]Number, len(rows))
		for i, r := range rows {
			out[i] = Number(r[c].float())
		}
		return out
	}
	out := Series{
		Step: int64(s.step.Seconds()), Times: slices.Clone(s.times),
		Received: numbers(receivedColumn), Sent: numbers(sentColumn), Handshake: numbers(handshakeColumn),
	}
	for _, f := range opt.Families() {
		loss := column(f, lossColumn)
		if slices.ContainsFunc(rows, func(r row) bool { return r[loss] != 0 }) {
			out.Paths = out.Paths.With(f, PathSeries{
				RTT50: numbers(column(f, rtt50Column)), RTT99: numbers(column(f, rtt99Column)), Loss: numbers(loss),
			})
		}
	}
	return out, true
}

// Number is a number that may be unknown: NaN, which is null in JSON.
type Number float64

// MarshalJSON writes the number with four significant digits.
func (n Number) MarshalJSON() ([]byte, error) {
	if math.IsNaN(float64(n)) {
		return []byte("null"), nil
	}
	return formatNumber(float64(n)), nil
}
