package node

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/rs/zerolog"

	"github.com/loden-net/loden/config"
	"github.com/loden-net/loden/config/opt"
	"github.com/loden-net/loden/network"
	"github.com/loden-net/loden/network/wire"
)

// WireReport is the sum of the samples of the wire so far.
type WireReport struct {
	Samples   uint64 `json:"samples"`      // samples that were proven by their canaries
	Unproven  uint64 `json:"unproven"`     // samples that missed canaries, and so are no proof
	Clear     uint64 `json:"clearPackets"` // packets with an overlay address in clear
	LastError string `json:"lastError,omitempty"`
}

// sampler samples the wire at intervals, for the metric. It is off by default: each sample
// sends a few empty packets with overlay addresses, for which a monitor of the network may
// raise an alarm.
type sampler struct {
	every time.Duration // 0 takes no samples
	log   zerolog.Logger

	mu   sync.Mutex // guards seen
	seen WireReport
}

// sampleTime is the length of a sample.
const sampleTime = 2 * time.Second

// Run samples the interfaces of options at every tick, until ctx ends; then it returns nil.
func (s *sampler) Run(ctx context.Context, options func() (wire.Options, bool)) error {
	ticks, stop := ticker(s.every)
	defer stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticks:
		}
		o, ok := options()
		if !ok {
			continue
		}
		result, err := wire.Check(ctx, o)
		if ctx.Err() == nil {
			s.count(result, err)
		}
	}
}

// count adds a sample.
func (s *sampler) count(r wire.Result, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.seen.Clear += r.Clear
	s.seen.LastError = ""
	switch {
	case err != nil:
		s.seen.Unproven++
		s.seen.LastError = oneLine(err.Error())
	case !r.Proven():
		s.seen.Unproven++
	default:
		s.seen.Samples++
	}
	if r.Clear > 0 {
		s.log.Error().Uint64("packets", r.Clear).Str("first", fmt.Sprint(r.Samples)).Msg("overlay addresses on the wire in clear")
	}
}

func (s *sampler) report() WireReport {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.seen
}

// sampleOptions returns the options of a sample: every interface that leads off the node,
// for addresses of the overlay. It is false while the network is not known.
func (n *node) sampleOptions() (wire.Options, bool) {
	in := n.reconciler.Inputs()
	return sampleOf(in.HostState, in.Network), !in.Exits.IsZero() && in.Network.Ranges.Len() > 0
}

// sampleOf returns the options of a sample of every exit.
func sampleOf(out network.HostState, n config.Network) wire.Options {
	return wire.Options{
		Interfaces: slices.Collect(out.Exits.All()), For: sampleTime,
		Filter: wire.Filter{Except: out.Underlay, Networks: opt.Map(n.Ranges, func(_ opt.Family, r config.Range) netip.Prefix { return r.Network })},
	}
}
