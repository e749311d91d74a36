package wg

import (
	"fmt"
	"runtime"
	"sync"
	"testing"
	"testing/synctest"
)

// Handshakes of many peers at once, with as many workers as a machine of eight processors has.
func TestSeveralHandshakeWorkersServeManyPeersAtOnce(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(8))
	synctest.Test(t, func(t *testing.T) {
		const peers = 12
		w := newWire()
		hub := ours(t, w, 1)
		defer hub.stop()
		if got := hub.device.handshakeWorkers; got != 4 {
			t.Fatalf("%d handshake workers, want 4", got)
		}
		var all sync.WaitGroup
		var want sync.Map
		for n := 2; n < 2+peers; n++ {
			x := ours(t, w, n)
			defer x.stop()
			x.meet(hub, "")
			hub.meet(x, "")
			p := datagram(x, hub, 0, fmt.Appendf(nil, "from %d", n))
			want.Store(string(p), true)
			all.Go(func() { x.in(p) })
		}
		all.Wait()
		synctest.Wait()
		for range peers {
			got := <-hub.out
			if _, expected := want.LoadAndDelete(string(got)); !expected {
				t.Errorf("the hub got %q, or got it twice", got)
			}
		}
		if got := hub.device.counters.rejected.Load(); got != 0 {
			t.Errorf("%d handshake messages rejected", got)
		}
	})
}
