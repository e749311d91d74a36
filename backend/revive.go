package backend

import (
	"context"
	"fmt"
	"sync"
	"time"

	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"github.com/loden-net/loden/config/wait"
)

// A device that was replaced, after a crash of its engine or because the interface was deleted,
// has lost its sessions, and its peers do not know: they go on sending by a session that is
// gone, and begin a new handshake only after 15 s without an answer (WireGuard, section 6.5).
// So the new device begins a handshake with every peer that probably had a session.

// reviveAll is the number of peers up to which every peer counts as a peer with a session. In
// a larger network the sessions that the last listings showed decide: a handshake costs 0.2 ms
// of CPU time on either side (measured in November 2026).
const reviveAll = 256

// lost returns the desired peers that the device had and has no more: they are to be added
// although a configuration applied them before.
func (c comparison) lost(edits []edit, s *sessions) []Peer {
	added := map[wgtypes.Key]bool{}
	for _, e := range edits {
		_, known := c.published[e.key]
		if e.verb == add && known && (len(c.published) <= reviveAll || s.alive(e.key, c.now)) {
			added[e.key] = true
		}
	}
	var out []Peer
	for p := range c.want.Peers.All() {
		if added[p.Key] && p.Endpoint.IsValid() {
			out = append(out, p)
		}
	}
	return out
}

// Switching persistent keepalive on makes every implementation send a keepalive, which needs
// a session and so begins a handshake. The handshake goes on when it is switched off again.
const (
	revivalKeepalive = 25 * time.Second
	revivalPause     = 200 * time.Millisecond // an engine may begin handshakes on another goroutine
)

// revive begins handshakes with the peers.
func (d *Device) revive(ctx context.Context, peers []Peer) error {
	var on, off wgtypes.Config
	for _, p := range peers {
		if wholeSeconds(p.Keepalive) == 0 { // others have begun by themselves
			on.Peers = append(on.Peers, wgtypes.PeerConfig{PublicKey: p.Key, UpdateOnly: true, PersistentKeepaliveInterval: new(revivalKeepalive)})
			off.Peers = append(off.Peers, wgtypes.PeerConfig{PublicKey: p.Key, UpdateOnly: true, PersistentKeepaliveInterval: new(time.Duration)})
		}
	}
	if len(on.Peers) == 0 {
		return nil
	}
	if err := d.host.tunnels.configure(ctx, d.name, on); err != nil {
		return fmt.Errorf("begin handshakes: %w", err)
	}
	wait.For(ctx, revivalPause)
	return d.host.tunnels.configure(ctx, d.name, off)
}

// sessions are the last handshakes that listings of the device showed. The zero value has none.
type sessions struct {
	mu   sync.Mutex
	last map[wgtypes.Key]time.Time // guarded by mu
}

// see takes a listing. A peer without a handshake keeps the time of its last handshake, which
// an engine before this engine may have completed.
func (s *sessions) see(peers []livePeer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.last == nil {
		s.last = map[wgtypes.Key]time.Time{}
	}
	for _, p := range peers {
		if !p.handshake.IsZero() {
			s.last[p.key] = p.handshake
		}
	}
}

// alive reports whether the last known handshake with the peer is young enough for a session.
// It also forgets the peers whose sessions have ended.
func (s *sessions) alive(key wgtypes.Key, now time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !(livePeer{handshake: s.last[key]}).fresh(now) {
		delete(s.last, key)
		return false
	}
	return true
}
