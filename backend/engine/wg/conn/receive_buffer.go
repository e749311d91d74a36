package conn

import "time"

// A receive buffer must take a burst of several MiB without loss, and must not become a standing
// queue that delays every packet while datagrams come faster than they are decrypted. Both follow
// from when the reader last found the buffer empty: the buffer is large at first, and is halved for
// each interval in which it never became empty, down to a size that delays little.
//
//	empty a moment ago      largestBuffer
//	not for 500 ms          half of it
//	not for another 100 ms  half again, and so on, down to smallestBuffer
const (
	largestBuffer  = 8 << 20 // bytes; the kernel doubles it for its own overhead
	smallestBuffer = 1 << 19
	standingAfter  = 500 * time.Millisecond
	halveEvery     = 100 * time.Millisecond
)

// receiveBuffer decides the size of the receive buffer. It belongs to the goroutine that receives.
type receiveBuffer struct {
	size int           // bytes, as set
	next time.Duration // when it is halved, unless it becomes empty before
}

// step takes the time and whether the buffer was found empty, and reports whether the size changed.
func (r *receiveBuffer) step(now time.Duration, empty bool) (changed bool) {
	before := r.size
	switch {
	case empty:
		r.size, r.next = largestBuffer, now+standingAfter
	case now >= r.next && r.size > smallestBuffer:
		r.size, r.next = r.size/2, now+halveEvery
	}
	return r.size != before
}
