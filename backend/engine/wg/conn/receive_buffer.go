package conn

import "time"

// A receive buffer must take a burst of several MiB without loss, and must not become a standing
// queue that delays every packet under sustained load: with 8 MiB the round trip beside a TCP stream
// was 6.7 ms, with 512 KiB 1.4 ms (two cores, 27 November 2026). So the buffer is large while there is
// credit for a burst, and small without:
//
//	credit          at most burstCredit bytes; refillPerSecond flows in, every received byte takes one
//	credit is 0     smallestBuffer: more than 1 Gbit/s flows without a pause
//	half is back    largestBuffer
//	standing queue  the buffer was not empty for standingAfter: the credit is 0 for half a second more,
//	                because a machine that is slower than 1 Gbit/s never uses its credit up
const (
	largestBuffer   = 8 << 20 // bytes; the kernel doubles it for its own overhead
	smallestBuffer  = 1 << 19
	burstCredit     = 16 << 20 // bytes
	refillPerSecond = 1 << 27  // bytes
	standingAfter   = 100 * time.Millisecond
	standingDebt    = refillPerSecond / 2 // bytes
)

// receiveBuffer decides the size of the receive buffer. It belongs to the goroutine that receives.
type receiveBuffer struct {
	size   int           // bytes, as set
	credit int           // bytes; below 0 after a standing queue
	last   time.Duration // of the last step
	empty  time.Duration // when the buffer was found empty
}

func newReceiveBuffer() receiveBuffer { return receiveBuffer{size: largestBuffer, credit: burstCredit} }

// step takes the time, the bytes that were received, and whether the buffer was found empty before
// them. It reports whether the size changed.
func (r *receiveBuffer) step(now time.Duration, received int, empty bool) (changed bool) {
	before := r.size
	refill := min(now-r.last, time.Second).Seconds() * refillPerSecond // more than a full credit and a debt
	r.credit = min(burstCredit, r.credit+int(refill))
	if r.credit >= 0 {
		r.credit = max(0, r.credit-received)
	}
	if empty {
		r.empty = now
	} else if now-r.empty >= standingAfter {
		r.credit, r.empty = -standingDebt, now
	}
	r.last = now
	switch {
	case r.credit <= 0:
		r.size = smallestBuffer
	case r.credit >= burstCredit/2:
		r.size = largestBuffer
	}
	return r.size != before
}
