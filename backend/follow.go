package backend

import (
	"context"
	"net/netip"
	"time"

	"github.com/loden-net/loden/config"
	"github.com/loden-net/loden/config/diff"
	"github.com/loden-net/loden/config/sorted"
)

// Follow returns the step from one configuration to another that differs from it in peers alone.
// The interface must be as the first configuration desires it: the last Changes or Follow, whose
// steps have run, was for it, and no event has told of a change since. Then the peers that
// differ are told to WireGuard, and neither the other peers nor the host are looked at: with
// 10,000 peers a listing costs a hundred times more than a peer. An error leaves open what the interface
// has; Changes finds it out.
func (d *Device) Follow(_ context.Context, from, to Config) ([]diff.Change, error) {
	c := comparison{want: to}
	c.want.Peers = Peers{}
	published := endpoints{}
	var after []Peer
	for change := range sorted.Diff(from.Peers, to.Peers) {
		if p, ok := change.Before.Get(); ok {
			c.live = append(c.live, p.applied(from))
			published[p.Key] = netip.AddrPort{}
		}
		if p, ok := change.After.Get(); ok {
			after = append(after, p)
			published[p.Key] = p.Endpoint
		}
	}
	if len(c.live)+len(after) == 0 {
		return nil, nil
	}
	c.want.Peers = sorted.Of(after...)
	spare, err := NewKey()
	if err != nil {
		return nil, err
	}
	c.spare = spare.Public()
	edits := c.edits()
	if len(edits) == 0 {
		return nil, nil
	}
	verb, object := describe(edits)
	return []diff.Change{d.change(verb, object, func(ctx context.Context) error {
		ctx, cancel := context.WithTimeout(ctx, followWithin+time.Duration(len(edits))*time.Millisecond)
		defer cancel()
		if err := d.host.tunnels.configure(ctx, d.name, configOf(edits)); err != nil {
			return err
		}
		return d.host.record.add(published)
	})}, nil
}

// followWithin is how long WireGuard may take for a few peers, and a millisecond more for each
// peer. After it a listing finds out whether the engine hangs.
const followWithin = hungAfter * lookEvery

// applied returns the peer as the device has it after a configuration. The endpoint may be another
// by now, if the peer roamed; a publication that did not change is no reason to touch it.
func (p Peer) applied(c Config) livePeer {
	out := livePeer{key: p.Key, endpoint: p.Endpoint, psk: c.PresharedKey.Or(config.PresharedKey{}), keepalive: wholeSeconds(p.Keepalive)}
	for _, prefix := range p.Subnets.All() {
		out.prefixes = append(out.prefixes, prefix)
	}
	return out
}
