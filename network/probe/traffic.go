package probe

import "time"

// Traffic is what WireGuard counts for a peer.
type Traffic struct {
	Handshake time.Time // zero before the first handshake
	Received  int64     // bytes, handshake messages and keepalives among them
	Sent      int64     // bytes
}

// sample is Traffic at a moment.
type sample struct {
	at time.Time
	Traffic
}

const (
	samplesKept  = 12
	freshSession = 180 * time.Second // REJECT_AFTER_TIME: the life of a keypair, white paper section 6.1

	// A growth of the counters is judged over these times: two keepalives fit into the longer.
	growthTime   = 5 * time.Second
	growthWindow = 22 * time.Second
)

// traffic is the history of the counters of a peer, the newest last.
type traffic []sample

func (t traffic) add(now time.Time, c Traffic) traffic {
	t = append(t, sample{now, c})
	return t[max(0, len(t)-samplesKept):]
}

// between returns the first sample that is not before from, and the newest. It reports
// whether they are far enough apart for a judgement.
func (t traffic) between(from time.Time) (first, newest sample, ok bool) {
	for _, s := range t {
		if !s.at.Before(from) {
			newest = t[len(t)-1]
			return s, newest, newest.at.Sub(s.at) >= growthTime
		}
	}
	return first, newest, false
}

// oneSided reports whether this node has sent to the peer since the sample before, and no
// packet has come back: a sign that the path is broken, found without a question.
func (t traffic) oneSided() bool {
	if len(t) < 2 {
		return false
	}
	before, now := t[len(t)-2], t[len(t)-1]
	return now.at.Sub(before.at) >= growthTime && now.Sent > before.Sent && now.Received == before.Received
}
