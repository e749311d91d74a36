package probe

import (
	"time"

	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"github.com/loden-net/loden/config/opt"
)

// opinionLife is how long the word of a third node counts.
const opinionLife = 75 * time.Second

// opinion is a peer's view of this node, as a third node brought it: this node hears no
// packet of the peer, so the peer cannot tell it itself.
type opinion struct {
	at    time.Time // zero: none
	heard time.Time // when the peer heard this node last, by this node's clock; zero: never
}

// hears reports whether the peer heard this node lately, and since a moment.
func (o opinion) hears(now, since time.Time) bool {
	return now.Sub(o.at) < opinionLife && o.heard.After(since) && o.at.Sub(o.heard) < freshView
}

// Silent returns the peers of which no packet arrives, and the peers whose paths are up,
// which may know more about them; of both a few at most, another choice each time.
func (s *Service) Silent() (silent, witnesses []wgtypes.Key) {
	const most = 4
	s.mu.Lock()
	defer s.mu.Unlock()
	for key, n := range s.peers {
		for _, p := range n.paths.All() {
			switch {
			case p.mute && (p.verdict.State == Down || p.verdict.State == OneWay):
				if len(silent) < most {
					silent = append(silent, key)
				}
			case p.verdict.State == Up && !p.mute && len(witnesses) < most:
				witnesses = append(witnesses, key)
			default:
				continue
			}
			break
		}
	}
	return silent, witnesses
}

// Told notes when a peer heard this node last in a family, as a third node tells; the zero
// Time means never. ago is by the clock of that peer.
func (s *Service) Told(peer wgtypes.Key, f opt.Family, ago opt.Option[time.Duration]) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n, ok := s.peers[peer]
	if !ok {
		return
	}
	p, ok := n.paths.Of(f).Get()
	if !ok {
		return
	}
	now := time.Now()
	p.hearing = opinion{at: now}
	if d, heard := ago.Get(); heard {
		p.hearing.heard = now.Add(-d)
	}
	s.judge(n, f, now)
}
