package probe

import (
	"slices"
	"time"
)

// The pace of questions on a path. With the interval of 10 s a path that breaks is named
// within 10 + 12.5 s, and a lost packet is repeated before WireGuard itself repeats a handshake.
const (
	answerTime = 1500 * time.Millisecond // a question without an answer for this long counts as lost until the answer comes
	hurry      = 500 * time.Millisecond  // between questions while a loss is new or the MTU is searched

	// A path that answered no question of so many, over so long a time, is judged as silent. The
	// time covers the passive keepalive of WireGuard (KEEPALIVE_TIMEOUT, 10 s, white
	// paper section 6.5), with which a peer without this service acknowledges a question.
	rowLen  = 4
	rowSpan = 12500 * time.Millisecond

	memory      = 32 // questions that a path remembers
	window      = 16 // questions by which the loss is counted
	lossLimit   = 3  // lost questions of the window that make a path degraded
	settledLen  = 6  // answered questions after which a loss is no longer new
	healedLen   = 12 // answered questions after which a degraded path is up
	rttMemory   = 64 // round-trip times that the quantiles come from
	idleSession = 120 * time.Second
)

// query is a question that was asked.
type query struct {
	id     uint64
	at     time.Time
	size   int  // bytes of the IP packet of a large question; 0 for a small question
	proof  bool // answered, or refused by the peer's host
	closed bool // the peer's host refused it: its port is closed
}

// path is a family of a peer: what was asked and what came back. It is pure: the time and
// the datagrams come from outside.
type path struct {
	interval time.Duration
	jitter   float64 // 0.95..1.05, for the next question; new for each question
	born     time.Time
	calls    int // questions that are asked at once, because there is a sign that the state changed

	asked    []query // the newest last
	rtts     []time.Duration
	heard    time.Time // last authentic message of the peer
	answered time.Time // last answer
	theirs   message   // the last message of the peer: its view of this node
	theirsAt time.Time
	ahead    time.Duration // the peer's clock before this node's, at the fastest recent answer
	hearing  opinion       // by a third node: whether the peer hears this node
	large    search
	mute     bool   // the verdict is about a path without answers
	fault    string // why the last question could not be sent; ""
	verdict  Path
}

// Path is the judgement of a path.
type Path struct {
	State  string    // Up, Degraded, OneWay, MTU, Down, Unknown
	Since  time.Time // start of the state
	Reason string    // in words; for Up only when other evidence than answers proves the path
	Remedy string

	RTT50, RTT99 time.Duration // quantiles of the recent answers; 0: no answer yet
	Loss         float64       // 0..1 of the recent questions
	MTU          int           // bytes of the largest IP packet that came back; 0: not measured
	Heard        time.Time     // last authentic message of the peer; zero: none
	ClockAhead   time.Duration // how far the peer's clock is before this node's; 0: not measured
}

func newPath(interval time.Duration, born time.Time) *path {
	return &path{interval: interval, jitter: 1, born: born, verdict: Path{State: Unknown, Since: born, Reason: "the path has not been probed yet"}}
}

// newest returns the newest question.
func (p *path) newest() (query, bool) {
	if len(p.asked) == 0 {
		return query{}, false
	}
	return p.asked[len(p.asked)-1], true
}

// due returns when the next question is to be asked.
func (p *path) due() time.Time {
	last, ok := p.newest()
	switch {
	case !ok:
		return p.born
	case p.calls > 0 && (last.proof || p.silentState()), last.proof && (p.unsettled() || p.searching()):
		return last.at.Add(hurry)
	case last.proof || p.silentState():
		next := last.at.Add(time.Duration(float64(p.interval) * p.jitter))
		if last.proof && !last.closed && last.size == 0 && p.large.full != 0 { // the large question is due at the latest
			next = earliest(next, latest(p.large.at.Add(p.largeEvery()), last.at.Add(hurry)))
		}
		return next
	}
	return last.at.Add(answerTime)
}

// searching reports whether a large question should follow soon.
func (p *path) searching() bool {
	last, ok := p.newest()
	return ok && !last.closed && p.large.busy()
}

// largeEvery returns the time between two large questions.
func (p *path) largeEvery() time.Duration { return 2*p.interval - p.interval/5 }

// silentState reports whether the path is judged as silent, so that there is no hurry.
func (p *path) silentState() bool {
	return p.mute && len(p.row()) > 2*rowLen
}

// suspect reports whether questions are lost that have not led to a verdict yet, or the peer
// called.
func (p *path) suspect() bool { return p.calls > 0 || len(p.row()) > 1 && !p.silentState() }

// unsettled reports whether one of the newest questions is lost or still without an answer.
func (p *path) unsettled() bool {
	for _, q := range p.asked[max(0, len(p.asked)-settledLen):] {
		if q.lost() && q.size == 0 {
			return true
		}
	}
	return p.verdict.State == Degraded
}

// lost reports whether the question has no answer. Whoever asks has waited answerTime, or
// asks about questions that were followed by another.
func (q query) lost() bool { return !q.proof }

// row returns the questions since the last that was answered.
func (p *path) row() []query {
	i := len(p.asked)
	for i > 0 && p.asked[i-1].lost() {
		i--
	}
	return p.asked[i:]
}

// silent reports whether the path has been without an answer for so long that it is judged,
// and since when.
func (p *path) silent(now time.Time) (since time.Time, ok bool) {
	row := p.row()
	if len(row) > 0 && now.Sub(row[len(row)-1].at) < answerTime {
		row = row[:len(row)-1] // its answer may be under way
	}
	if len(row) < rowLen {
		return time.Time{}, false
	}
	return row[0].at, now.Sub(row[0].at) >= rowSpan
}

// size returns the size of the next question, bytes of the IP packet; 0 for a small question.
func (p *path) size(now time.Time) int {
	last, ok := p.newest()
	if !ok || last.size != 0 || !last.proof || last.closed || p.unsettled() {
		return 0
	}
	return p.large.next(now, p.largeEvery())
}

// ask notes a question. jitter is a random number from 0.95 to 1.05.
func (p *path) ask(now time.Time, id uint64, size int, jitter float64) {
	p.asked = append(p.asked, query{id: id, at: now, size: size})
	if len(p.asked) > memory {
		p.asked = slices.Delete(p.asked, 0, len(p.asked)-memory)
	}
	p.jitter, p.calls = jitter, max(p.calls-1, 0)
	if size != 0 {
		p.large.ask(now, size)
	}
}

// answer notes the answer to a question, and reports whether the question was asked and had
// no answer yet.
func (p *path) answer(now time.Time, m message) bool {
	i := p.find(m.re)
	if i < 0 || p.asked[i].proof && !p.asked[i].closed {
		return false
	}
	q := &p.asked[i]
	rested := now.Sub(p.answered) > idleSession // the answer waited for a handshake
	q.proof, q.closed = true, false
	took := now.Sub(q.at)
	if !rested {
		p.rtts = append(p.rtts, took)
		p.rtts = p.rtts[max(0, len(p.rtts)-rttMemory):]
	}
	if q.size == 0 { // a small answer took no time in queues of large packets
		p.ahead = m.sent.Sub(q.at.Add(took / 2))
	}
	p.prove(q.size)
	p.answered = now
	p.hear(now, m)
	return true
}

// prove notes that a question of a size came back.
func (p *path) prove(size int) {
	if size != 0 {
		p.large.back(size)
		return
	}
	p.large.small()
}

// refuse notes that the peer's host refused a question, because its port is closed.
func (p *path) refuse(id uint64) bool {
	i := p.find(id)
	if i < 0 || p.asked[i].proof {
		return false
	}
	p.asked[i].proof, p.asked[i].closed = true, true
	return true
}

// find returns the index of a question, or -1.
func (p *path) find(id uint64) int {
	return slices.IndexFunc(p.asked, func(q query) bool { return q.id == id })
}

// hear notes an authentic message of the peer.
func (p *path) hear(now time.Time, m message) {
	if _, silent := p.silent(now); silent && m.kind == ask {
		p.calls = 1
	}
	p.heard, p.theirs, p.theirsAt = now, m, now
}

// restart forgets the losses before the newest answer: the path was silent and is alive.
func (p *path) restart() {
	for i := range slices.Backward(p.asked) {
		if p.asked[i].proof {
			p.asked = slices.Delete(p.asked, 0, i)
			break
		}
	}
	p.hearing = opinion{}
}

// losses returns the number of lost small questions in the window, and the number that the
// window has. Large questions count when they came back.
func (p *path) losses(now time.Time) (lost, of int) {
	for _, q := range slices.Backward(p.asked) {
		if of == window {
			break
		}
		switch {
		case q.proof:
			of++
		case q.size == 0 && now.Sub(q.at) >= answerTime:
			lost, of = lost+1, of+1
		}
	}
	return lost, of
}

// healed reports whether the newest questions were all answered.
func (p *path) healed() bool {
	n := 0
	for _, q := range slices.Backward(p.asked) {
		if n == healedLen {
			return true
		}
		if q.lost() && q.size == 0 {
			return false
		}
		n++
	}
	return n > 0
}

// since returns the time since an event, or never.
func since(now, at time.Time) time.Duration {
	if at.IsZero() {
		return never
	}
	return now.Sub(at)
}

// view fills in this node's view of the peer for a message.
func (p *path) view(now time.Time, m message) message {
	m.sent, m.heard, m.answered = now, since(now, p.heard), since(now, p.answered)
	return m
}

// result returns the judgement with the numbers of now.
func (p *path) result(now time.Time) Path {
	out := p.verdict
	if lost, of := p.losses(now); of > 0 {
		out.Loss = float64(lost) / float64(of)
	}
	sorted := slices.Sorted(slices.Values(p.rtts))
	if n := len(sorted); n > 0 {
		out.RTT50, out.RTT99 = sorted[n/2], sorted[min(n-1, n*99/100)]
	}
	out.MTU, out.Heard, out.ClockAhead = p.large.good, p.heard, p.ahead
	return out
}
