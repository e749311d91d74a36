package wg

import "testing"

// Hands change the order of work, not that of packets: see crew.
func TestStreamsArriveWholeThroughHands(t *testing.T) {
	for name, v6 := range map[string]bool{"over IPv4": false, "over IPv6": true} {
		t.Run(name, func(t *testing.T) {
			a, b := newMachineLike(t, 1, machine{workers: 2, queues: 1}), newMachineLike(t, 2, machine{workers: 2, queues: 1})
			connect(t, a, b, v6, 1500, 1420)
			a.ping(t, "10.0.0.2")
			done := make(chan struct{})
			go func() {
				defer close(done)
				transfer(t, b, a, "fd00::1", 32<<20)
			}()
			transfer(t, a, b, "10.0.0.2", 32<<20)
			<-done
			for _, m := range []*machine{a, b} {
				if n := m.device.counters.submitted.Load(); n == 0 {
					t.Error("no batch went through hands")
				} else {
					t.Logf("%d batches through hands, %d messages too late for the window", n, m.device.counters.replayed.Load())
				}
			}
		})
	}
}
