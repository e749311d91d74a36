package conn

import (
	"testing"
	"time"

	"pgregory.net/rapid"
)

// flow gives the buffer a flow of bytes per second for a while, in steps of a millisecond, and
// returns its last size.
func flow(r *receiveBuffer, now *time.Duration, length time.Duration, perSecond int, empty bool) int {
	for end := *now + length; *now < end; {
		*now += time.Millisecond
		r.step(*now, perSecond/1000, empty)
	}
	return r.size
}

func TestReceiveBufferTakesBurstsAndIsSmallUnderSustainedLoad(t *testing.T) {
	r, now := newReceiveBuffer(), time.Duration(0)
	for burst := range 20 { // 4 MiB within 10 ms, every 60 ms
		if got := flow(&r, &now, 10*time.Millisecond, 400<<20, false); got != largestBuffer {
			t.Fatalf("burst %d meets a buffer of %d bytes", burst, got)
		}
		flow(&r, &now, 50*time.Millisecond, 0, true)
	}
	if got := flow(&r, &now, 100*time.Millisecond, 400<<20, true); got != smallestBuffer {
		t.Errorf("%d bytes under 3.4 Gbit/s for 100 ms, want %d", got, smallestBuffer)
	}
	if got := flow(&r, &now, 3*time.Second, 400<<20, true); got != smallestBuffer {
		t.Errorf("%d bytes under 3.4 Gbit/s for 3 s, want %d", got, smallestBuffer)
	}
	if got := flow(&r, &now, 100*time.Millisecond, 10<<20, true); got != largestBuffer {
		t.Errorf("%d bytes after a pause of 100 ms, want %d", got, largestBuffer)
	}
}

// A slow machine has its queue in the buffer, at any rate.
func TestReceiveBufferIsSmallUnderAStandingQueueOfASlowMachine(t *testing.T) {
	r, now := newReceiveBuffer(), time.Duration(0)
	if got := flow(&r, &now, 99*time.Millisecond, 20<<20, false); got != largestBuffer {
		t.Errorf("%d bytes after 99 ms, want %d", got, largestBuffer)
	}
	if got := flow(&r, &now, 2*time.Millisecond, 20<<20, false); got != smallestBuffer {
		t.Errorf("%d bytes after 101 ms, want %d", got, smallestBuffer)
	}
	if got := flow(&r, &now, 400*time.Millisecond, 20<<20, true); got != smallestBuffer {
		t.Errorf("%d bytes 400 ms after the queue, want %d", got, smallestBuffer)
	}
	if got := flow(&r, &now, 400*time.Millisecond, 20<<20, true); got != largestBuffer {
		t.Errorf("%d bytes 800 ms after the queue, want %d", got, largestBuffer)
	}
}

func TestReceiveBufferStaysWithinItsBounds(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r, now := newReceiveBuffer(), time.Duration(0)
		for range rapid.IntRange(1, 200).Draw(t, "steps") {
			now += time.Duration(rapid.IntRange(0, 2_000_000).Draw(t, "µs")) * time.Microsecond
			before := r.size
			changed := r.step(now, rapid.IntRange(0, 20<<20).Draw(t, "received"), rapid.Bool().Draw(t, "empty"))
			switch {
			case changed != (r.size != before):
				t.Fatalf("reported %t for %d → %d bytes", changed, before, r.size)
			case r.size != smallestBuffer && r.size != largestBuffer:
				t.Fatalf("%d bytes", r.size)
			case r.credit > burstCredit || r.credit < -standingDebt:
				t.Fatalf("credit of %d bytes", r.credit)
			case r.credit <= 0 && r.size != smallestBuffer:
				t.Fatalf("%d bytes without credit", r.size)
			}
		}
	})
}
