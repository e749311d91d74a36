package peer

import (
	"sync"
	"testing"
)

func TestUsedUpCounterNeverWrapsHoweverManyReserve(t *testing.T) {
	var k Keypair
	k.counter.Store(rejectAfterMessages - 1)
	var group sync.WaitGroup
	for range 4 {
		group.Go(func() {
			for range 100_000 {
				if from, ok := k.Reserve(1 << 20); ok {
					t.Errorf("counter %d was given", from)
					return
				}
			}
		})
	}
	group.Wait()
}

func TestUsedUpCounterEndsTheKeypair(t *testing.T) {
	k := Keypair{created: 1}
	k.counter.Store(rejectAfterMessages - 1)
	if _, ok := k.Reserve(1); ok {
		t.Error("a counter past the limit was given")
	}
	if _, ok := k.Reserve(1 << 20); ok || k.Usable(2) {
		t.Error("the keypair is still usable")
	}
}
