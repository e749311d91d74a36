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

// WireReport is what looking at the wire has shown so far.
type WireReport struct {
	Samples   uint64 `json:"samples"`      // looks that were proven by their canaries
	Unproven  uint64 `json:"unproven"`     // looks that saw not all of their canaries, and so prove nothing
	Clear     uint64 `json:"clearPackets"` // packets with an overlay address in clear
	LastError string `json:"lastError,omitempty"`
}

// sampler looks at the wire now and then, for the metric. It never looks by itself: each
// look sends a few empty packets with overlay addresses, which somebody else's alarm may
// count.
type sampler struct {
	every time.Duration // 0: never
	log   zerolog.Logger

	mu   sync.Mutex // guards seen
	seen WireReport
}

// wireLook is how long one look takes.
const wireLook = 2 * time.Second

// run looks at what options says every time, until ctx ends; then it returns nil.
func (s *sampler) run(ctx context.Context, options func() (wire.Options, bool)) error {
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

// count adds one look.
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

// wireOptions says what to look at: every interface that leads off the node, for addresses
// of the overlay. It is false while the network is not known.
func (d *daemon) wireOptions() (wire.Options, bool) {
	in := d.reconciler.Inputs()
	return wireOptions(in.Outlook, in.Network), !in.Exits.IsZero() && in.Network.Ranges.Len() > 0
}

func wireOptions(out network.Outlook, n config.Network) wire.Options {
	return wire.Options{
		Interfaces: slices.Collect(out.Exits.All()), For: wireLook,
		Filter: wire.Filter{Except: out.Underlay, Networks: opt.Map(n.Ranges, func(_ opt.Family, r config.Range) netip.Prefix { return r.Network })},
	}
}

// checkWire looks at the wire once.
func (h *host) checkWire(ctx context.Context, n config.Network) Finding {
	const what = "wire"
	result, err := wire.Check(ctx, wireOptions(h.outlook, n))
	canaries := fmt.Sprintf("%d of %d canaries seen on %s in %v", result.CanariesSeen, result.CanariesSent, h.outlook.Exits, wireLook)
	switch {
	case err != nil:
		return found(what, "", err)
	case result.Clear > 0:
		return Finding{what, Bad, fmt.Sprintf("%d packets with overlay addresses in clear, such as %v: look at the guard in `loden status`", result.Clear, result.Samples)}
	case !result.Encrypted():
		return Finding{what, Warn, canaries + ", so that seeing nothing proves nothing: try again on a quieter link"}
	}
	return Finding{what, Good, "nothing in clear; " + canaries}
}
