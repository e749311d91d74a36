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

// livePeer is a peer as the device has it now.
type livePeer struct {
	key       wgtypes.Key
	endpoint  netip.AddrPort // last learned or configured; invalid when there is none
	prefixes  []netip.Prefix // allowed IPs
	psk       config.PresharedKey
	keepalive time.Duration
	handshake time.Time // of the last one; zero when there was none
	rx, tx    int64     // bytes
}

// edit is one entry of a configuration call: only what differs.
type edit struct {
	key       wgtypes.Key
	verb      editVerb
	endpoint  opt.Option[netip.AddrPort]
	psk       opt.Option[config.PresharedKey]
	keepalive opt.Option[time.Duration]
	gain      []netip.Prefix // WireGuard takes each from whoever holds it, in one step
}

type editVerb uint8

const (
	change  editVerb = iota // a peer that is there
	add                     // a peer that is not
	remove                  // a peer that nobody wants
	service                 // the spare peer: of no interest to a reader
)

// handshakeFresh is how long an endpoint that a peer was heard from is believed against
// the one it published: WireGuard's Reject-After-Time. A live session is renewed before.
const handshakeFresh = 180 * time.Second

// peerEdits returns what to tell the device, in an order in which no packet between two
// peers that stay is lost. A prefix that moves is given to its new holder and never taken
// from the old one. A prefix that nobody wants any more is given to the peer spare, a key
// of nobody's, which is made and removed for that: WireGuard can only take a single prefix
// away from a peer by replacing all that the peer has, which would interrupt the others.
func peerEdits(have []livePeer, want Config, now time.Time, spare wgtypes.Key) []edit {
	live := make(map[wgtypes.Key]livePeer, len(have))
	for _, p := range have {
		live[p.key] = p
	}
	var edits []edit
	wanted := make(map[wgtypes.Key]bool, len(want.Peers))
	claimed := make(map[netip.Prefix]bool, 2*len(want.Peers))
	for _, p := range want.Peers {
		wanted[p.Key] = true
		for _, prefix := range p.Subnets.All() {
			claimed[prefix] = true
		}
		old, exists := live[p.Key]
		if e, differs := peerEdit(old, exists, p, want.PresharedKey, now); differs {
			edits = append(edits, e)
		}
	}
	var stale []netip.Prefix
	var gone []edit
	for _, p := range have {
		if !wanted[p.key] {
			gone = append(gone, edit{key: p.key, verb: remove})
			continue
		}
		stale = append(stale, slices.DeleteFunc(slices.Clone(p.prefixes), func(x netip.Prefix) bool { return claimed[x] })...)
	}
	if len(stale) > 0 {
		edits = append(edits, edit{key: spare, verb: service, gain: stale})
		gone = append(gone, edit{key: spare, verb: service})
	}
	slices.SortStableFunc(gone, func(a, b edit) int { return slices.Compare(a.key[:], b.key[:]) })
	return append(edits, gone...)
}

// peerEdit compares one wanted peer with the live one.
func peerEdit(old livePeer, exists bool, want Peer, psk opt.Option[config.PresharedKey], now time.Time) (e edit, differs bool) {
	e = edit{key: want.Key, verb: change}
	if !exists {
		e.verb = add
	}
	if want.Endpoint.IsValid() && old.endpoint != want.Endpoint && !fresh(old, now) {
		e.endpoint = opt.Some(want.Endpoint)
	}
	if k := psk.Or(config.PresharedKey{}); k != old.psk {
		e.psk = opt.Some(k)
	}
	if k := wholeSeconds(want.Keepalive); k != old.keepalive {
		e.keepalive = opt.Some(k)
	}
	for _, prefix := range want.Subnets.All() {
		if !slices.Contains(old.prefixes, prefix) {
			e.gain = append(e.gain, prefix)
		}
	}
	differs = !exists || e.endpoint.Present() || e.psk.Present() || e.keepalive.Present() || len(e.gain) > 0
	return e, differs
}

// fresh reports whether the peer was heard from lately. A handshake in the future, after
// the clock was set back, proves nothing.
func fresh(p livePeer, now time.Time) bool {
	age := now.Sub(p.handshake)
	return !p.handshake.IsZero() && age >= 0 && age < handshakeFresh
}

// wholeSeconds rounds up to what WireGuard can hold, so that a wish can be met exactly.
func wholeSeconds(d time.Duration) time.Duration {
	if d <= 0 {
		return 0
	}
	return min(d+time.Second-1, 65535*time.Second).Truncate(time.Second)
}

// describe says in a few words what the edits do: the verb and object of a diff.Change.
func describe(edits []edit) (verb, object string) {
	shown := slices.DeleteFunc(slices.Clone(edits), func(e edit) bool { return e.verb == service })
	count := map[editVerb]int{}
	for _, e := range shown {
		count[e.verb]++
	}
	switch len(shown) {
	case 0: // only prefixes that nobody wants
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

// describePeer names one edit's peer, and what of it differs.
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
