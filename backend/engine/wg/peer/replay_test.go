package peer

import (
	"math/rand/v2"
	"testing"

	"golang.zx2c4.com/wireguard/replay"
)

// handedOver is the number of counters that a window remembers in the next process.
const handedOver = 15 * blockBits

func TestWindowTakesWhatTheReferenceTakes(t *testing.T) {
	steps := []uint64{0, 1, 2, blockBits - 1, blockBits, blockBits + 1, windowSize - 1, windowSize, windowSize + 1, 1 << 14, 1 << 40}
	for seed := range uint64(200) {
		random := rand.New(rand.NewPCG(seed, 0))
		var w window
		var reference replay.Filter
		var at uint64
		for range 2000 {
			switch counter, by := at, steps[random.IntN(len(steps))]; {
			case random.IntN(3) == 0:
				at += random.Uint64N(by + 1)
			case counter >= by:
				at -= random.Uint64N(by + 1)
			}
			if got, want := w.take(at), reference.ValidateCounter(at, rejectAfterMessages); got != want {
				t.Fatalf("seed %d: counter %d with %d the newest: taken %v, want %v", seed, at, w.newest, got, want)
			}
		}
	}
}

func TestWindowGoesOnInAnotherProcess(t *testing.T) {
	for seed := range uint64(200) {
		random := rand.New(rand.NewPCG(seed, 0))
		w, seen := &window{}, map[uint64]bool{}
		for range 2000 {
			if random.IntN(50) == 0 {
				var next window
				next.resume(w.export())
				w = &next
			}
			counter := w.newest + random.Uint64N(70)
			counter -= min(counter, random.Uint64N(2000))
			switch taken := w.take(counter); {
			case taken && seen[counter]:
				t.Fatalf("seed %d: counter %d taken twice", seed, counter)
			case !taken && !seen[counter] && w.newest-counter < handedOver:
				t.Fatalf("seed %d: counter %d refused with %d the newest", seed, counter, w.newest)
			case taken:
				seen[counter] = true
			}
		}
	}
}
