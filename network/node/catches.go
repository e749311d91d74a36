package node

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/loden-net/loden/network/node/history"
	"github.com/loden-net/loden/network/wire"
)

// lookTime is how long the uplinks are looked at after the guard caught packets that came in.
// The counters of the guard do not say whose packets they were, and a flow seldom ends at once.
const lookTime = 2 * time.Second

// mostLooks is the number of flows that a look names.
const mostLooks = 5

// flow is the way of packets of the overlay that stand in plaintext.
type flow struct{ iface, src, dst string }

// nameCatches adds events with source and destination when the guard caught packets that came
// in between two reports. Packets that go out never reach an uplink: the guard drops them
// before, so their addresses are not known.
func (r *recorder) nameCatches(ctx context.Context, before, now Report) {
	if !caughtIncoming(before, now) {
		return
	}
	at := time.Now()
	for _, f := range r.look(ctx) {
		text := fmt.Sprintf("plaintext from %s to %s arrives, and the guard drops it", f.src, f.dst)
		r.events.Add(history.Event{At: at, Kind: history.Guard, Object: f.iface, Text: text})
	}
}

// caughtIncoming reports whether a counter of incoming packets rose.
func caughtIncoming(before, now Report) bool {
	was := map[string]uint64{}
	for _, c := range before.Firewall.Clear {
		if c.Direction == "in" {
			was[c.Family] = c.Packets
		}
	}
	for _, c := range now.Firewall.Clear {
		if n, known := was[c.Family]; known && c.Direction == "in" && c.Packets > n {
			return true
		}
	}
	return false
}

// look returns the flows of the overlay that arrive in plaintext on the uplinks within
// lookTime, each once. It sends no packet.
func (n *node) look(ctx context.Context) []flow {
	o, ok := n.sampleOptions()
	if !ok {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, lookTime)
	defer cancel()
	flows, err := incoming(ctx, o)
	if err != nil {
		n.log.Warn().Err(err).Msg("the packets that the guard catches cannot be looked at")
	}
	return flows
}

// incoming collects the flows that arrive on all interfaces until ctx ends.
func incoming(ctx context.Context, o wire.Options) ([]flow, error) {
	var mu sync.Mutex // guards flows
	var flows []flow
	see := func(p wire.Packet) {
		mu.Lock()
		defer mu.Unlock()
		f := flow{p.Interface, p.Src.String(), p.Dst.String()}
		if !p.Outgoing && !p.Canary && len(flows) < mostLooks && !slices.Contains(flows, f) {
			flows = append(flows, f)
		}
	}
	g, ctx := errgroup.WithContext(ctx)
	for _, iface := range o.Interfaces {
		g.Go(func() error {
			s, err := wire.Open(iface, o.Filter)
			if err != nil {
				return err
			}
			return errors.Join(s.Run(ctx, see), s.Close())
		})
	}
	err := g.Wait()
	return flows, err
}
