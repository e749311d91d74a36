// Package wire proves that the wire is encrypted: on the uplinks it counts packets that
// carry an overlay address in clear, and shows by canaries of its own that it would see
// them. It must not know the rules that should prevent them.
package wire

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
)

// samples is how many clear packets a Result names; further packets are only counted.
const samples = 10

// canaries is how many canaries are sent per interface and family.
const canaries = 3

// Options names the interfaces and the packets to watch.
type Options struct {
	Interfaces []string      // uplinks: every interface that leads off the node, except the tunnel
	Filter     Filter        // matches overlay traffic
	For        time.Duration // how long; the canaries are part of it
}

// Result counts the packets that a check saw.
type Result struct {
	Clear   uint64   `json:"clear"`             // packets with an overlay address in clear
	Samples []Packet `json:"samples,omitempty"` // the first of them
	Missed  uint32   `json:"missed"`            // packets that came too fast to be looked at

	CanariesSent int `json:"canariesSent"`
	CanariesSeen int `json:"canariesSeen"`
}

// Encrypted reports whether no packet was in clear and the canaries prove that the check would
// have seen it.
func (r Result) Encrypted() bool { return r.Clear == 0 && r.Missed == 0 && r.Proven() }

// Proven reports whether every canary was seen: without that, silence is no proof.
func (r Result) Proven() bool { return r.CanariesSent > 0 && r.CanariesSeen == r.CanariesSent }

// String returns the counts as a line of text.
func (r Result) String() string {
	return fmt.Sprintf("%d packets in clear, %d missed, %d of %d canaries seen", r.Clear, r.Missed, r.CanariesSeen, r.CanariesSent)
}

// Check watches the interfaces for o.For, or until ctx ends, and returns the counts. It
// blocks. It needs CAP_NET_RAW and interfaces that are up.
func Check(ctx context.Context, o Options) (Result, error) {
	c, err := OpenCheck(o)
	if err != nil {
		return Result{}, err
	}
	return c.Run(ctx)
}

// Checking is a check whose sockets are open: it sees everything from now on. Run must be
// called; it closes them.
type Checking struct {
	options  Options
	sniffers []*Sniffer
	watch    watch
}

// OpenCheck opens the sockets of a check in the calling thread's network namespace.
func OpenCheck(o Options) (*Checking, error) {
	if len(o.Interfaces) == 0 || o.Filter.Networks.Len() == 0 {
		return nil, errors.New("watch the wire: no interface or no overlay network given")
	}
	sniffers, err := openAll(o)
	if err != nil {
		return nil, err
	}
	c := &Checking{options: o, sniffers: sniffers}
	c.watch.nonce, c.watch.seen = rand.Uint64(), map[string]bool{}
	return c, nil
}

// Run sends the canaries, watches and closes. It blocks until the time is over, ctx ends
// or an interface fails, and returns the counts up to then.
func (c *Checking) Run(ctx context.Context) (Result, error) {
	ctx, cancel := context.WithTimeout(ctx, c.options.For)
	defer cancel()
	var errs []error
	for _, s := range c.sniffers {
		errs = append(errs, c.watch.probe(s, c.options.Filter))
	}
	if errors.Join(errs...) != nil {
		cancel() // no canaries, no proof
	}
	group, ctx := errgroup.WithContext(ctx)
	for _, s := range c.sniffers {
		group.Go(func() error { return s.Run(ctx, c.watch.see) })
	}
	errs = append(errs, group.Wait())
	for _, s := range c.sniffers {
		missed, err := s.Missed()
		c.watch.result.Missed += missed
		errs = append(errs, err, s.Close())
	}
	return c.watch.result, errors.Join(errs...)
}

func openAll(o Options) ([]*Sniffer, error) {
	var sniffers []*Sniffer
	for _, name := range o.Interfaces {
		s, err := Open(name, o.Filter)
		if err != nil {
			for _, s := range sniffers {
				err = errors.Join(err, s.Close())
			}
			return nil, err
		}
		sniffers = append(sniffers, s)
	}
	return sniffers, nil
}

// watch gathers the packets that the sniffers of a check see.
type watch struct {
	nonce uint64 // of this check's canaries; canaries of other checks are not counted

	mu     sync.Mutex // guards the fields below
	result Result
	seen   map[string]bool // canaries, by interface, family and number
}

func (w *watch) see(p Packet) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if p.Canary {
		key := fmt.Sprint(p.Interface, p.Src, p.nonce-w.nonce)
		if p.nonce-w.nonce < canaries && p.Outgoing && !w.seen[key] {
			w.seen[key] = true
			w.result.CanariesSeen++
		}
		return
	}
	w.result.Clear++
	if len(w.result.Samples) < samples {
		w.result.Samples = append(w.result.Samples, p)
	}
}

// probe sends the canaries of an interface.
func (w *watch) probe(s *Sniffer, f Filter) error {
	for i := range uint64(canaries) {
		for _, network := range f.Networks.All() {
			if err := s.send(canary(network, w.nonce+i)); err != nil {
				return fmt.Errorf("send canary on %s: %w", s.link.Name, err)
			}
			w.result.CanariesSent++
		}
	}
	return nil
}
