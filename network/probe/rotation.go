package probe

import (
	"bytes"
	"slices"
	"time"

	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"
)

// rotation chooses the peers that are asked. Up to everyPeer peers all are asked. Above, the
// peers take turns: a member stays until its paths are judged, and then the next follows. So the
// cost does not grow with the number of peers.
//
// A peer without a live session is *cold*: a question makes WireGuard send handshake
// initiations, for 90 seconds when the peer is dead (REKEY_ATTEMPT_TIME, white paper section 6.1).
// So cold peers join rarely as long as they turn out to be dead.
type rotation struct {
	all     []*neighbour // sorted by key
	members []*neighbour // that are asked now
	warmAt  int          // index in all of the next warm member
	coldAt  int          // index in all of the next cold member
	coldDue time.Time    // when a cold peer may join
	pause   time.Duration
}

const (
	membersMost  = 16 // members above everyPeer peers
	lookedAt     = 64 // peers that a turn looks at to find the next member
	warmTime     = 10 * time.Minute
	coldPauseMin = 300 * time.Millisecond // between two cold peers that join, while they answer
	coldPauseMax = time.Minute            // and while they do not
)

// set takes the peers of a new plan. Members that stay are members still.
func (r *rotation) set(peers map[wgtypes.Key]*neighbour) {
	r.all = r.all[:0]
	for _, n := range peers {
		r.all = append(r.all, n)
	}
	slices.SortFunc(r.all, func(a, b *neighbour) int { return bytes.Compare(a.Key[:], b.Key[:]) })
	r.members = slices.DeleteFunc(r.members, func(n *neighbour) bool { return peers[n.Key] != n })
	if !r.samples() {
		for _, n := range r.members {
			n.member = false
		}
		r.members = nil
	}
}

// samples reports whether the peers take turns.
func (r *rotation) samples() bool { return len(r.all) > everyPeer }

// turn returns the peers that are asked now, and when a cold peer may join next.
func (r *rotation) turn(now time.Time) (members []*neighbour, coldDue time.Time) {
	if !r.samples() {
		return r.all, now.Add(maxPause)
	}
	r.members = slices.DeleteFunc(r.members, func(n *neighbour) bool {
		if !n.judged() {
			return false
		}
		r.learn(n)
		n.member = false
		return true
	})
	cold := 0
	for _, n := range r.members {
		if n.cold {
			cold++
		}
	}
	r.joinWarm(now, membersMost/2-(len(r.members)-cold))
	room := membersMost/2 - cold
	r.joinCold(now, room)
	if room <= 0 {
		return r.members, now.Add(maxPause) // the next turn comes when a member is due
	}
	return r.members, r.coldDue
}

// joinWarm lets the next warm peers join, up to a number.
func (r *rotation) joinWarm(now time.Time, room int) {
	for range lookedAt {
		if room <= 0 {
			return
		}
		n := r.all[r.warmAt%len(r.all)]
		r.warmAt = (r.warmAt + 1) % len(r.all)
		if r.join(n, now, n.warm(now)) {
			room--
		}
	}
}

// joinCold lets the next cold peers join, up to a number, as far as they are due.
func (r *rotation) joinCold(now time.Time, room int) {
	for range lookedAt {
		if room <= 0 || now.Before(r.coldDue) {
			return
		}
		n := r.all[r.coldAt%len(r.all)]
		r.coldAt = (r.coldAt + 1) % len(r.all)
		if r.join(n, now, !n.warm(now)) {
			room--
			r.pause = min(max(r.pause, coldPauseMin), coldPauseMax)
			r.coldDue = now.Add(r.pause)
		}
	}
	if room > 0 && !now.Before(r.coldDue) { // none of the peers that were looked at may join yet
		r.coldDue = now.Add(coldPauseMin)
	}
}

// join makes a peer a member, if it fits and is not a member yet.
func (r *rotation) join(n *neighbour, now time.Time, fits bool) bool {
	if !fits || n.member || n.paths.IsZero() || now.Sub(n.joined) < n.interval() {
		return false
	}
	n.member, n.joined, n.cold = true, now, !n.warm(now)
	r.members = append(r.members, n)
	return true
}

// call makes a peer a member at once, because there is a sign that its path is broken.
func (r *rotation) call(n *neighbour, now time.Time) {
	if r.samples() && !n.member && len(r.members) < 2*membersMost {
		n.member, n.joined, n.cold = true, now, false
		r.members = append(r.members, n)
	}
}

// learn adapts the pause between cold peers to how the last of them turned out.
func (r *rotation) learn(n *neighbour) {
	switch {
	case !n.cold:
	case n.mute():
		r.pause = min(2*max(r.pause, coldPauseMin), coldPauseMax)
	default:
		r.pause = max(r.pause/2, coldPauseMin)
	}
}

// warm reports whether a question to the peer needs no handshake with a peer that may be
// dead.
func (n *neighbour) warm(now time.Time) bool {
	if len(n.traffic) > 0 && since(now, n.traffic[len(n.traffic)-1].Handshake) < freshSession {
		return true
	}
	for _, p := range n.paths.All() {
		if since(now, p.answered) < warmTime {
			return true
		}
	}
	return false
}

// judged reports whether every path of a member was asked since it joined, and its state is
// clear.
func (n *neighbour) judged() bool {
	for _, p := range n.paths.All() {
		last, ok := p.newest()
		if !ok || last.at.Before(n.joined) || !p.mute && (!last.proof || p.unsettled() || p.searching()) {
			return false
		}
	}
	return true
}

// mute reports whether all paths of the peer are silent.
func (n *neighbour) mute() bool {
	for _, p := range n.paths.All() {
		if !p.mute {
			return false
		}
	}
	return true
}

// interval returns the least time between two memberships.
func (n *neighbour) interval() time.Duration {
	for _, p := range n.paths.All() {
		return p.interval
	}
	return 0
}
