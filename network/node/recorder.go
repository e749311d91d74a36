package node

import (
	"context"
	"math"
	"strings"
	"sync"
	"time"

	"github.com/rs/zerolog"

	"github.com/loden-net/loden/config/opt"
	"github.com/loden-net/loden/config/wait"
	"github.com/loden-net/loden/network"
	"github.com/loden-net/loden/network/node/history"
)

// recorder keeps the recent past of the node: it compares each pass with the pass before and
// each report with the report before, and takes samples of the peers. Make it with
// newRecorder.
type recorder struct {
	report  func(context.Context) Report
	look    func(context.Context) []flow // at the packets that arrive in plaintext; may block for some seconds
	events  history.Events
	samples *history.Samples
	metrics histograms
	log     zerolog.Logger

	mu       sync.Mutex // guards the fields below
	pass     opt.Option[network.Status]
	last     opt.Option[Report]
	counters map[string]byteCounters // of the last sample, by public key
}

// byteCounters are the counters of a peer at a moment.
type byteCounters struct {
	at             time.Time
	received, sent int64
}

func newRecorder(report func(context.Context) Report) *recorder {
	return &recorder{report: report, look: func(context.Context) []flow { return nil }, samples: history.NewSamples(), metrics: newHistograms()}
}

// passed records the events of a pass. It does not block.
func (r *recorder) passed(s network.Status) {
	r.mu.Lock()
	before := r.pass
	r.pass = opt.Some(s)
	r.mu.Unlock()
	r.events.Add(passEvents(before, s)...)
	r.metrics.passed(s)
}

// reported records the events of a report. Reports must come in the order in which they were made.
func (r *recorder) reported(rep Report) {
	if incomplete(rep) {
		return
	}
	r.mu.Lock()
	before := r.last
	r.last = opt.Some(rep)
	r.mu.Unlock()
	r.events.Add(reportEvents(before, rep, time.Now())...)
	if last, ok := before.Get(); ok && r.log.GetLevel() <= zerolog.DebugLevel {
		for _, e := range handshakeEvents(last, rep, time.Now()) {
			e.log(r.log)
		}
	}
}

// Run takes samples until ctx ends, and then returns nil.
func (r *recorder) Run(ctx context.Context) error {
	before := r.report(ctx)
	for wait.For(ctx, r.samples.Step()) {
		rep := r.report(ctx)
		now := time.Now()
		if samples := r.sample(rep, now); !incomplete(rep) {
			r.samples.Add(now, samples)
			r.metrics.sampled(samples)
		}
		r.nameCatches(ctx, before, rep)
		before = rep
	}
	return nil
}

// sample returns a sample of every peer, with rates since the last sample.
func (r *recorder) sample(rep Report, now time.Time) []history.Sample {
	r.mu.Lock()
	defer r.mu.Unlock()
	before := r.counters
	r.counters = make(map[string]byteCounters, len(rep.Peers))
	var out []history.Sample
	for _, p := range rep.Peers {
		s := history.Sample{Peer: p.PublicKey, Received: math.NaN(), Sent: math.NaN(), Handshake: math.NaN()}
		if !p.Handshake.IsZero() {
			s.Handshake = max(0, now.Sub(p.Handshake).Seconds())
		}
		counters := byteCounters{now, p.Received, p.Sent}
		if last, ok := before[p.PublicKey]; ok {
			s.Received, s.Sent = counters.rates(last)
		}
		r.counters[p.PublicKey] = counters
		for _, path := range p.Paths {
			s.Paths = s.Paths.With(familyOf(path), probeOf(path))
		}
		out = append(out, s)
	}
	return out
}

// rates returns the bytes per second since an earlier moment. A counter that fell belongs to
// another engine, and its rate is not known.
func (c byteCounters) rates(before byteCounters) (received, sent float64) {
	seconds := c.at.Sub(before.at).Seconds()
	rate := func(now, then int64) float64 {
		if seconds <= 0 || now < then {
			return math.NaN()
		}
		return float64(now-then) / seconds
	}
	return rate(c.received, before.received), rate(c.sent, before.sent)
}

// familyOf returns the family of a path.
func familyOf(p PathReport) opt.Family {
	if p.Family == strings.ToLower(opt.V6.String()) {
		return opt.V6
	}
	return opt.V4
}

// probeOf returns the numbers of a path, as far as they were measured.
func probeOf(p PathReport) history.Probe {
	out := history.Probe{RTT50: math.NaN(), RTT99: math.NaN(), Loss: math.NaN()}
	if p.RTT50 > 0 {
		out.RTT50, out.RTT99 = p.RTT50, p.RTT99
	}
	if p.State != pathUnknown {
		out.Loss = p.Loss
	}
	return out
}

// incomplete reports whether a report lacks the peers because the engine gave no answer.
func incomplete(rep Report) bool { return rep.Engine.Silent || rep.deviceUnknown }
