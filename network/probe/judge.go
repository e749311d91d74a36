package probe

import (
	"fmt"
	"time"

	"github.com/loden-net/loden/config/opt"
)

// subject is a peer as it is judged: its paths, and what WireGuard counts for it. It is pure.
type subject struct {
	name    string // of the peer's node
	own     string // name of this node
	held    bool   // the peer's lease vanished in a mass removal
	paths   opt.Dual[*path]
	traffic traffic
	period  time.Duration // between two samples of the traffic
	blind   bool          // WireGuard of this node gives no answer, so the fault is here
	spoke   bool          // the peer sent an authentic message since this node started
}

// freshView is how long a message of the peer tells what the peer sees now.
const freshView = 15 * time.Second

// judge judges the path of a family anew, and reports whether its state changed. A state
// stands until there is proof of another state.
func (s *subject) judge(f opt.Family, now time.Time) bool {
	p, ok := s.paths.Of(f).Get()
	if !ok {
		return false
	}
	next, ok := s.verdict(f, p, now)
	if !ok {
		return false
	}
	before := p.verdict
	next.Since = before.Since
	changed := next.State != before.State
	if changed {
		next.Since = now
		if from, silent := p.silent(now); silent && next.State != Up {
			next.Since = from
		}
	}
	p.verdict = next
	return changed
}

// verdict returns the state, reason and remedy of a path; false when there is no proof of a
// state yet.
func (s *subject) verdict(f opt.Family, p *path, now time.Time) (Path, bool) {
	from, silent := p.silent(now)
	last, ok := p.newest()
	switch {
	case silent:
		p.mute = true
		return s.silent(f, p, from, now), true
	case p.mute && ok && last.proof:
		p.mute = false
		p.restart()
	}
	if !ok {
		return Path{}, false
	}
	if !last.proof { // its answer may be under way, and a row of losses is no mere loss
		return Path{}, false
	}
	return s.alive(p, last, now), true
}

// alive judges a path whose newest question came back.
func (s *subject) alive(p *path, last query, now time.Time) Path {
	lost, of := p.losses(now)
	switch {
	case last.closed && s.spoke:
		return Path{State: Up, Reason: fmt.Sprintf("the daemon of %s does not run; its host answers in its place, so packets pass", s.name)}
	case last.closed:
		return Path{State: Up, Reason: fmt.Sprintf("%s does not answer probes (flannel, or an older Loden); its host answers in its place, so packets pass", s.name)}
	case p.verdict.State == Degraded && !p.healed(), lost >= lossLimit:
		return s.lossy(lost, of)
	case p.large.broken():
		return s.narrow(p)
	}
	return Path{State: Up}
}

func (s *subject) lossy(lost, of int) Path {
	return Path{
		State:  Degraded,
		Reason: fmt.Sprintf("%d of the last %d probes were lost", lost, of),
		Remedy: s.ask("look for a full link, a faulty cable or a rate limit between the two hosts"),
	}
}

func (s *subject) narrow(p *path) Path {
	reason := fmt.Sprintf("packets of %d bytes are lost and small packets pass", p.large.bad)
	if !p.large.busy() && p.large.good > 0 {
		reason = fmt.Sprintf("the path carries packets of %d bytes at most, and the tunnel's MTU is %d", p.large.good, p.large.full)
	}
	return Path{
		State: MTU, Reason: reason,
		Remedy: s.ask("set Backend.MTU in the network document to what the path between the hosts carries, or let ICMP \"too big\" and fragments pass"),
	}
}

// silent judges a path on which no question since a moment was answered.
func (s *subject) silent(f opt.Family, p *path, from, now time.Time) Path {
	for other, q := range s.paths.All() {
		if _, mute := q.silent(now); other != f && !mute && since(now, q.answered) < freshView {
			return Path{
				State:  Down,
				Reason: fmt.Sprintf("%s answers probes over %v and has answered none over %v for %s", s.name, other, f, span(now, from)),
				Remedy: s.ask(fmt.Sprintf("the tunnel works: look for a firewall or a route that treats %v otherwise on either node", f)),
			}
		}
	}
	if since(now, p.theirsAt) < freshView && p.theirsAt.After(from.Add(answerTime)) {
		return s.heard(p, from, now)
	}
	if p.hearing.hears(now, from) {
		return Path{
			State:  OneWay,
			Reason: fmt.Sprintf("packets of this node reach %s, and no packet of %s has arrived here for %s", s.name, s.name, span(now, earlier(from, p.heard))),
			Remedy: s.ask(fmt.Sprintf("let WireGuard's UDP port pass from %s to %s", s.name, s.own)),
		}
	}
	return s.byCounters(p, from, now)
}

// heard judges a silent path on which messages of the peer arrive.
func (s *subject) heard(p *path, from, now time.Time) Path {
	hears := p.theirs.heard
	if hears != never {
		hears += now.Sub(p.theirsAt)
	}
	if hears < freshView && hears < now.Sub(from) {
		return Path{
			State:  Degraded,
			Reason: fmt.Sprintf("%s hears this node and sends probes, and has answered none for %s", s.name, span(now, from)),
			Remedy: s.ask("restart its daemon when this lasts"),
		}
	}
	return Path{
		State:  OneWay,
		Reason: fmt.Sprintf("packets of %s arrive here, and no packet of this node has reached %s for %s", s.name, s.name, span(now, from)),
		Remedy: s.ask(fmt.Sprintf("let WireGuard's UDP port pass from %s to %s", s.own, s.name)),
	}
}

// byCounters judges a path on which no message of the peer arrives, by what WireGuard
// counted while the questions were lost. A peer without this service acknowledges them with
// a keepalive after 10 seconds.
func (s *subject) byCounters(p *path, from, now time.Time) Path {
	first, newest, known := s.traffic.between(latest(from.Add(answerTime), now.Add(-max(growthWindow, 2*s.period+suspectSample))))
	grew := known && newest.Received > first.Received
	old := since(now, newest.Handshake) > freshSession
	switch {
	case s.blind:
		return Path{State: Unknown, Reason: "WireGuard of this node does not answer, so the path cannot be judged"}
	case grew && !old && s.spoke:
		return Path{State: Up, Reason: fmt.Sprintf("the daemon of %s does not answer; packets of %s arrive, so its data path stands", s.name, s.name)}
	case grew && !old:
		return Path{State: Up, Reason: fmt.Sprintf("%s does not answer probes (flannel, an older Loden, or a firewall): judged by its handshake and its packets", s.name)}
	case grew:
		return Path{
			State:  OneWay,
			Reason: fmt.Sprintf("handshake messages of %s arrive here, and this node's do not reach %s", s.name, s.name),
			Remedy: s.ask(fmt.Sprintf("let WireGuard's UDP port pass from %s to %s", s.own, s.name)),
		}
	case !known && !s.spoke && s.period > suspectSample*rowLen:
		return Path{State: Unknown, Reason: fmt.Sprintf("%s has answered no probe yet, and its counters are looked at every %v only", s.name, s.period)}
	case s.held:
		return Path{State: Unknown, Reason: fmt.Sprintf("the lease of %s vanished in a mass removal and is held, and %s does not answer", s.name, s.name)}
	}
	if p.fault != "" {
		return Path{State: Down, Reason: fmt.Sprintf("this node cannot send to %s: %s", s.name, p.fault), Remedy: s.ask("see that " + s.name + " announces an endpoint, and that the interface is up")}
	}
	return Path{
		State:  Down,
		Reason: fmt.Sprintf("this node sends, and no packet of %s has arrived for %s", s.name, span(now, earlier(from, p.heard))),
		Remedy: s.ask(fmt.Sprintf("see that %s runs, and let WireGuard's UDP port pass between the two hosts in both directions", s.name)),
	}
}

// ask adds the command that looks further to a remedy.
func (s *subject) ask(remedy string) string {
	return fmt.Sprintf("%s; `loden why %s %s` looks at each step", remedy, s.own, s.name)
}

// span prints the time since a moment: 25s, 4m10s.
func span(now, from time.Time) string { return now.Sub(from).Round(time.Second).String() }

func latest(a, b time.Time) time.Time {
	if a.Before(b) {
		return b
	}
	return a
}

// earlier returns the earlier moment, unless it is unknown.
func earlier(from, heard time.Time) time.Time {
	if heard.IsZero() || heard.After(from) {
		return from
	}
	return heard
}
