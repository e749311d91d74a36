package conn

import (
	"testing"
	"time"

	"pgregory.net/rapid"
)

func TestReceiveBufferTakesBurstsAndShrinksUnderAStandingQueue(t *testing.T) {
	r := receiveBuffer{size: largestBuffer}
	at := func(ms int, empty bool, want int) {
		t.Helper()
		r.step(time.Duration(ms)*time.Millisecond, empty)
		if r.size != want {
			t.Errorf("at %d ms: %d bytes, want %d", ms, r.size, want)
		}
	}
	at(0, true, 8<<20)
	at(499, false, 8<<20) // a burst
	at(500, false, 4<<20)
	at(599, false, 4<<20)
	at(600, false, 2<<20)
	at(700, false, 1<<20)
	at(800, false, 1<<19)
	at(2900, false, 1<<19)
	at(2901, true, 8<<20)
	at(3400, false, 8<<20)
	at(3401, false, 4<<20)
}

func TestReceiveBufferStaysWithinItsBounds(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r, now := receiveBuffer{size: largestBuffer}, time.Duration(0)
		lastEmpty := now
		for range rapid.IntRange(1, 200).Draw(t, "steps") {
			now += time.Duration(rapid.IntRange(0, 200).Draw(t, "ms")) * time.Millisecond
			empty := rapid.IntRange(0, 9).Draw(t, "empty") == 0
			before := r.size
			changed := r.step(now, empty)
			if empty {
				lastEmpty = now
			}
			switch {
			case changed != (r.size != before):
				t.Fatalf("reported %t for %d → %d bytes", changed, before, r.size)
			case r.size < smallestBuffer || r.size > largestBuffer:
				t.Fatalf("%d bytes", r.size)
			case empty && r.size != largestBuffer:
				t.Fatalf("an empty buffer has %d bytes", r.size)
			case r.size < before && now-lastEmpty < standingAfter && lastEmpty != 0:
				t.Fatalf("shrank %v after it was empty", now-lastEmpty)
			}
		}
	})
}
