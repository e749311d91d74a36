package conn

import (
	"testing"
	"time"

	"pgregory.net/rapid"
)

// flow gives the buffer a flow of bytes per second for a while, in steps of a millisecond, and
// returns its last size. So many bytes always wait; with 0 the buffer is found empty.
func flow(r *receiveBuffer, now *time.Duration, length time.Duration, perSecond, queue int) int {
	for end := *now + length; *now < end; {
		*now += time.Millisecond
		r.step(*now, perSecond/1000, queue == 0, func() int { return queue })
	}
	return r.size
}

func TestReceiveBufferTakesBurstsAndIsSmallUnderSustainedLoad(t *testing.T) {
	r, now := newReceiveBuffer(), time.Duration(0)
	for burst := range 20 { // 4 MiB within 10 ms, every 60 ms
		if got := flow(&r, &now, 10*time.Millisecond, 400<<20, 4<<20); got != largestBuffer {
			t.Fatalf("burst %d meets a buffer of %d bytes", burst, got)
		}
		flow(&r, &now, 50*time.Millisecond, 0, 0)
	}
	if got := flow(&r, &now, 100*time.Millisecond, 400<<20, 0); got != smallestBuffer {
		t.Errorf("%d bytes under 3.4 Gbit/s for 100 ms, want %d", got, smallestBuffer)
	}
	if got := flow(&r, &now, 3*time.Second, 400<<20, 0); got != smallestBuffer {
		t.Errorf("%d bytes under 3.4 Gbit/s for 3 s, want %d", got, smallestBuffer)
	}
	if got := flow(&r, &now, 200*time.Millisecond, 10<<20, 0); got != largestBuffer {
		t.Errorf("%d bytes after a pause of 200 ms, want %d", got, largestBuffer)
	}
}

// A TCP stream that has just begun lost a thousand segments when the buffer shrank below its queue.
func TestReceiveBufferShrinksWhenItsQueueIsShort(t *testing.T) {
	r, now := newReceiveBuffer(), time.Duration(0)
	if got := flow(&r, &now, 150*time.Millisecond, 400<<20, 3<<20); got != largestBuffer {
		t.Errorf("%d bytes with a queue of 3 MiB, want %d", got, largestBuffer)
	}
	if got := flow(&r, &now, 50*time.Millisecond, 100<<20, 64<<10); got != smallestBuffer {
		t.Errorf("%d bytes with a queue of 64 KiB, want %d", got, smallestBuffer)
	}
}

// A sender that does not see the delay must see losses, few at a time.
func TestReceiveBufferWearsDownAQueueThatStays(t *testing.T) {
	r, now := newReceiveBuffer(), time.Duration(0)
	flow(&r, &now, patience, 400<<20, largestBuffer)
	for r.size > smallestBuffer {
		before := r.size
		if flow(&r, &now, shortFor, 400<<20, r.size); before-r.size > before/shrinkBy+1 {
			t.Fatalf("from %d to %d bytes in one step", before, r.size)
		}
		if now > 2*time.Second {
			t.Fatalf("%d bytes after 2 s", r.size)
		}
	}
}

// A receiver that got no processor for 50 ms finds datagrams: that was no pause, and gives no credit.
func TestReceiveBufferTakesNoWaitForAProcessorForAPause(t *testing.T) {
	r, now := newReceiveBuffer(), time.Duration(0)
	flow(&r, &now, 100*time.Millisecond, 400<<20, 0)
	for range 10 {
		now += 50 * time.Millisecond
		r.step(now, 1<<20, false, func() int { return 0 })
	}
	if r.size != smallestBuffer {
		t.Errorf("%d bytes, want %d", r.size, smallestBuffer)
	}
}

// A slow machine has its queue in the buffer, at any rate.
func TestReceiveBufferIsSmallUnderAStandingQueueOfASlowMachine(t *testing.T) {
	r, now := newReceiveBuffer(), time.Duration(0)
	if got := flow(&r, &now, standingAfter+patience-time.Millisecond, 20<<20, 1<<20); got != largestBuffer {
		t.Errorf("%d bytes at the end of patience, want %d", got, largestBuffer)
	}
	if got := flow(&r, &now, time.Second, 20<<20, 1<<20); got > 1<<20+20<<10 {
		t.Errorf("%d bytes a second later, want those of the queue", got)
	}
	if got := flow(&r, &now, 2*time.Second, 20<<20, 0); got != largestBuffer {
		t.Errorf("%d bytes 2 s after the queue, want %d", got, largestBuffer)
	}
}

func TestSinglePacketsNeedNoClock(t *testing.T) {
	r, now := newReceiveBuffer(), time.Duration(0)
	for range 1000 {
		if !r.rests(1500) {
			t.Fatal("a packet in an empty buffer needed the time")
		}
	}
	now = time.Hour
	r.step(now, 64<<10, false, func() int { t.Fatal("asked for the queue"); return 0 })
	if r.credit != burstCredit-64<<10 || r.size != largestBuffer {
		t.Errorf("credit %d, size %d after an hour of single packets", r.credit, r.size)
	}
}

func TestReceiveBufferStaysWithinItsBounds(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r, now := newReceiveBuffer(), time.Duration(0)
		for range rapid.IntRange(1, 200).Draw(t, "steps") {
			now += time.Duration(rapid.IntRange(0, 200_000).Draw(t, "µs")) * time.Microsecond
			before := r.size
			received, queue, empty := rapid.IntRange(0, 1<<20).Draw(t, "received"), rapid.IntRange(0, 16<<20).Draw(t, "queue"), rapid.Bool().Draw(t, "empty")
			if empty && r.rests(received) {
				continue
			}
			changed := r.step(now, received, empty, func() int { return queue })
			switch {
			case changed != (r.size != before):
				t.Fatalf("reported %t for %d → %d bytes", changed, before, r.size)
			case r.size < smallestBuffer || r.size > largestBuffer:
				t.Fatalf("%d bytes", r.size)
			case r.size > before && r.size != largestBuffer:
				t.Fatalf("grew from %d to %d bytes", before, r.size)
			case r.credit > burstCredit || r.credit < 0:
				t.Fatalf("credit of %d bytes", r.credit)
			}
		}
	})
}
