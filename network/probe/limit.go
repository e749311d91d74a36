package probe

import "time"

// bucket bounds a rate: it holds up to burst tokens and gains rate tokens a second. The zero
// value has no token and gains none.
type bucket struct {
	rate, burst float64
	level       float64
	at          time.Time // of level; zero: full
}

// take takes a token, or reports that there is none.
func (b *bucket) take(now time.Time) bool {
	if b.wait(now) > 0 {
		return false
	}
	b.level--
	return true
}

// wait returns the time until there is a token.
func (b *bucket) wait(now time.Time) time.Duration {
	if b.at.IsZero() {
		b.level = b.burst
	} else {
		b.level = min(b.burst, b.level+b.rate*max(now.Sub(b.at), 0).Seconds())
	}
	b.at = now
	if b.level >= 1 || b.rate <= 0 {
		return 0
	}
	return time.Duration((1-b.level)/b.rate*float64(time.Second)) + time.Microsecond
}

// The bounds of the service. Above everyPeer peers a node probes a sample that rotates: it asks
// and answers about sampleRate questions a second each, so it sends less than 10 packets a
// second of its own, and as many at most for the handshakes of sessions that were idle.
const (
	everyPeer   = 64  // peers up to which each is probed in every interval
	sampleRate  = 3.0 // questions a second above that number
	sampleBurst = 6.0
	fullRate    = 25.0 // questions a second up to that number
	fullBurst   = 130.0

	replyRate, replyBurst       = 10.0, 40.0    // replies a second to a peer
	replyRateAll, replyBurstAll = 300.0, 600.0  // and to all
	pieceRate, pieceBurst       = 300.0, 600.0  // pieces of answers a second to a peer
	pieceRateAll, pieceBurstAll = 900.0, 1800.0 // and to all
)
