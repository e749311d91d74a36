package conn

import "time"

// A receive buffer must take a burst of several MiB without loss, and must not become a standing
// queue that delays every packet under sustained load: with 8 MiB the round trip beside a TCP stream
// was 6.7 ms, with 512 KiB 1.4 ms (two cores, 27 November 2026). So the buffer is large while there is
// credit for a burst, and small without:
//
//	credit          at most burstCredit bytes. Every received byte takes one; refillPerSecond flows in
//	                while the buffer is empty, and only then: a queue that waits for a processor is no pause
//	credit is 0     the buffer shrinks to smallestBuffer, and stays small until the credit is full
//	credit is full  largestBuffer
//	standing queue  the buffer was not empty for standingAfter: the credit is 0, because a slow machine
//	                would take seconds to use it up
//
// A buffer that shrinks below its queue loses the difference: a TCP stream that has just begun, and
// still looks for its rate, lost a thousand segments. So the buffer shrinks when its queue has been
// short for shortFor, which a sender brings about by itself when it sees the delay (BBR within 0.2 s). A
// queue that is still long after patience gets less room every shortFor, so that its sender loses a few
// packets and learns to send less (CUBIC): each step takes shrinkBy of the size, or the room that the
// queue did not need.
const (
	largestBuffer   = 8 << 20 // bytes; the kernel doubles it for its own overhead
	smallestBuffer  = 1 << 19
	burstCredit     = 16 << 20 // bytes
	refillPerSecond = 1 << 27  // bytes
	standingAfter   = 100 * time.Millisecond
	shortFor        = 16 * time.Millisecond
	patience        = 200 * time.Millisecond
	shrinkBy        = 32      // the part of the size
	restsBelow      = 4 << 10 // bytes
)

// receiveBuffer decides the size of the receive buffer. It belongs to the goroutine that receives.
type receiveBuffer struct {
	size    int           // bytes, as set
	credit  int           // bytes
	last    time.Duration // of the last step
	empty   time.Duration // when the buffer was found empty
	stream  bool          // the credit was used up, and has not been full since
	since   time.Duration // when stream became true
	looked  time.Duration // when longest began
	longest int           // bytes of the longest queue since looked
	rested  bool          // the buffer was found empty, and the time was not read
}

func newReceiveBuffer() receiveBuffer { return receiveBuffer{size: largestBuffer, credit: burstCredit} }

// step takes the time, the bytes that were received, whether the buffer was found empty before them,
// and a way to ask for the bytes that still wait. It reports whether the size changed.
func (r *receiveBuffer) step(now time.Duration, received int, empty bool, waiting func() int) (changed bool) {
	before := r.size
	if r.rested {
		r.last, r.empty, r.rested = now, now, false
	}
	if empty {
		pause := min(now-r.last, time.Second).Seconds() // a second fills the credit
		r.credit = min(burstCredit, r.credit+int(pause*refillPerSecond))
		r.empty = now
	}
	if r.credit == burstCredit {
		r.size, r.stream = largestBuffer, false
	}
	if r.credit = max(0, r.credit-received); now-r.empty >= standingAfter {
		r.credit = 0
	}
	r.last = now
	if r.credit == 0 && !r.stream {
		r.stream, r.since, r.looked, r.longest = true, now, now, 0
	}
	if r.stream && r.size > smallestBuffer {
		r.shrink(now, received+waiting())
	}
	return r.size != before
}

// rests takes the bytes that were received into a buffer that was found empty. It reports whether they
// change nothing, so that step, which needs the time, is superfluous: so it is with single packets.
func (r *receiveBuffer) rests(received int) bool {
	if r.credit < burstCredit || received > restsBelow {
		return false
	}
	r.rested = true
	return true
}

// shrink makes the buffer smaller if that loses nothing, or at the end of patience. The queue is in
// bytes.
func (r *receiveBuffer) shrink(now time.Duration, queue int) {
	r.longest = max(r.longest, queue)
	if now-r.looked < shortFor {
		return
	}
	if r.longest <= smallestBuffer {
		r.size = smallestBuffer
	} else if now-r.since >= patience {
		r.size = max(smallestBuffer, min(r.longest, r.size-r.size/shrinkBy))
	}
	r.looked, r.longest = now, 0
}
