package backend

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"github.com/loden-net/loden/config"
	"github.com/loden-net/loden/config/opt"
)

// livePeer is a peer as the device lists it.
type livePeer struct {
	key       wgtypes.Key
	endpoint  netip.AddrPort // last learned or configured; invalid without an endpoint
	prefixes  []netip.Prefix // allowed IPs
	psk       config.PresharedKey
	keepalive time.Duration
	handshake time.Time // of the last handshake; zero before the first
	rx, tx    int64     // bytes
}

// fresh reports whether the peer completed a handshake lately. A handshake in the future,
// after the clock was set back, proves no such thing.
func (p livePeer) fresh(now time.Time) bool {
	age := now.Sub(p.handshake)
	return !p.handshake.IsZero() && age >= 0 && age < SessionLife
}

// edit is an entry of a configuration call: a peer, and the settings of it that differ.
type edit struct {
	key       wgtypes.Key
	verb      editVerb
	endpoint  opt.Option[netip.AddrPort]
	psk       opt.Option[config.PresharedKey]
	keepalive opt.Option[time.Duration]
	gain      []netip.Prefix // WireGuard takes each from its holder, in the same step
}

// differs reports whether the edit says anything to the device.
func (e edit) differs() bool {
	return e.verb != change || e.endpoint.Present() || e.psk.Present() || e.keepalive.Present() || len(e.gain) > 0
}

type editVerb uint8

const (
	change  editVerb = iota // an existing peer
	add                     // a new peer
	remove                  // a peer that is not desired
	service                 // the spare peer, which is of no interest to a reader
)

// comparison is the decision about the peers of a device: live is compared with want.
type comparison struct {
	live      []livePeer
	want      Config
	published endpoints // by the last configuration
	now       time.Time
	spare     wgtypes.Key // a public key that belongs to no node
}

// kept reports whether the device's peer must stay as it is, except for prefixes that it gains.
func (c comparison) kept(p livePeer) bool {
	switch c.want.Removals {
	case RemoveNone:
		return true
	case RemoveSilent:
		return p.fresh(c.now)
	case RemoveUnwanted:
	}
	return false
}

// edits returns the entries of the configuration call, in an order in which no packet between
// two peers that stay is lost. A prefix that moves is given to its new holder and never taken
// from the old holder. A prefix that is not desired any more is given to the spare peer, which
// is made and removed for that: WireGuard can only take a single prefix away from a peer by
// replacing all its prefixes, which would interrupt the traffic to the rest of them.
func (c comparison) edits() []edit {
	live := make(map[wgtypes.Key]livePeer, len(c.live))
	held := map[netip.Prefix]bool{} // by peers that are kept
	for _, p := range c.live {
		live[p.key] = p
		if c.kept(p) {
			for _, prefix := range p.prefixes {
				held[prefix] = true
			}
		}
	}
	var edits []edit
	wanted := make(map[wgtypes.Key]bool, c.want.Peers.Len())
	claimed := make(map[netip.Prefix]bool, 2*c.want.Peers.Len())
	for p := range c.want.Peers.All() {
		wanted[p.Key] = true
		for _, prefix := range p.Subnets.All() {
			claimed[prefix] = true
		}
		old, exists := live[p.Key]
		e := c.edit(old, exists, p)
		e.gain = slices.DeleteFunc(e.gain, func(x netip.Prefix) bool { return held[x] })
		if e.differs() {
			edits = append(edits, e)
		}
	}
	var stale []netip.Prefix
	var gone []edit
	for _, p := range c.live {
		switch {
		case c.kept(p):
		case !wanted[p.key]:
			gone = append(gone, edit{key: p.key, verb: remove})
		default:
			stale = append(stale, slices.DeleteFunc(slices.Clone(p.prefixes), func(x netip.Prefix) bool { return claimed[x] })...)
		}
	}
	if len(stale) > 0 {
		edits = append(edits, edit{key: c.spare, verb: service, gain: stale})
		gone = append(gone, edit{key: c.spare, verb: service})
	}
	slices.SortStableFunc(gone, func(a, b edit) int { return slices.Compare(a.key[:], b.key[:]) })
	return append(edits, gone...)
}

// edit compares a desired peer with the device's.
func (c comparison) edit(old livePeer, exists bool, want Peer) edit {
	e := edit{key: want.Key, verb: change}
	if !exists {
		e.verb = add
	}
	for _, prefix := range want.Subnets.All() {
		if !slices.Contains(old.prefixes, prefix) {
			e.gain = append(e.gain, prefix)
		}
	}
	if c.moves(old, want) {
		e.endpoint = opt.Some(want.Endpoint)
	}
	if exists && c.kept(old) {
		return e
	}
	if k := c.want.PresharedKey.Or(config.PresharedKey{}); k != old.psk {
		e.psk = opt.Some(k)
	}
	if k := wholeSeconds(want.Keepalive); k != old.keepalive {
		e.keepalive = opt.Some(k)
	}
	return e
}

// moves reports whether the published endpoint of a peer is to be set. An endpoint that the
// device learned from the peer's authenticated packets is better than the publication for as
// long as the peer is heard, except after a new publication: the node knows its own address.
//
//	endpoint of the device    last handshake    publication            result
//	none                      any               any                    set
//	the published             any               any                    no edit
//	another                   older             any                    set
//	another                   fresh             as last applied        keep the learned endpoint
//	another                   fresh             not known to be new    keep the learned endpoint
//	another                   fresh             new                    set
func (c comparison) moves(old livePeer, want Peer) bool {
	if !want.Endpoint.IsValid() || old.endpoint == want.Endpoint {
		return false
	}
	if !old.endpoint.IsValid() {
		return true
	}
	if c.kept(old) {
		return false
	}
	last, known := c.published[want.Key]
	return !old.fresh(c.now) || known && last != want.Endpoint
}

// publications returns the endpoints to be remembered when the edits have been made.
func (c comparison) publications() endpoints {
	live := make(map[wgtypes.Key]livePeer, len(c.live))
	out := endpoints{}
	for _, p := range c.live {
		live[p.key] = p
		if at, ok := c.published[p.key]; ok && c.kept(p) {
			out[p.key] = at
		}
	}
	for p := range c.want.Peers.All() {
		if old, exists := live[p.Key]; p.Endpoint.IsValid() && (!exists || !c.kept(old)) {
			out[p.Key] = p.Endpoint
		}
	}
	return out
}

// wholeSeconds rounds up to the intervals that WireGuard can hold, so that a second look finds
// no difference.
func wholeSeconds(d time.Duration) time.Duration {
	if d <= 0 {
		return 0
	}
	return min(d+time.Second-1, 65535*time.Second).Truncate(time.Second)
}

// describe returns the verb and the object of a diff.Change for the edits.
func describe(edits []edit) (verb, object string) {
	shown := slices.DeleteFunc(slices.Clone(edits), func(e edit) bool { return e.verb == service })
	count := map[editVerb]int{}
	for _, e := range shown {
		count[e.verb]++
	}
	switch len(shown) {
	case 0: // only prefixes that are not desired any more
		return "set", "allowed IPs"
	case count[add]:
		verb = "add"
	case count[remove]:
		verb = "delete"
	default:
		verb = "set"
	}
	if len(shown) == 1 {
		return verb, describePeer(shown[0])
	}
	return verb, fmt.Sprintf("%d peers: %d new, %d changed, %d gone", len(shown), count[add], count[change], count[remove])
}

// describePeer names the peer of an edit, and the settings that differ.
func describePeer(e edit) string {
	text := []string{"peer " + e.key.String()}
	if at, ok := e.endpoint.Get(); ok {
		text = append(text, "at "+at.String())
	}
	if len(e.gain) > 0 {
		names := make([]string, len(e.gain))
		for i, p := range e.gain {
			names[i] = p.String()
		}
		text = append(text, "for "+strings.Join(names, ", "))
	}
	if e.psk.Present() {
		text = append(text, "with another pre-shared key")
	}
	if k, ok := e.keepalive.Get(); ok {
		text = append(text, "with keepalive "+k.String())
	}
	return strings.Join(text, " ")
}

// sortPeers orders live peers by key, so that equal devices look equal.
func sortPeers(peers []livePeer) {
	slices.SortFunc(peers, func(a, b livePeer) int { return cmp.Compare(string(a.key[:]), string(b.key[:])) })
}
