package node

import (
	"context"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

func TestCatchesOfIncomingPacketsAreNamedBySourceAndDestination(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var rep atomic.Pointer[Report]
		guard := func(in, out uint64) {
			now := reportWith(func(r *Report) { r.Firewall.Clear = []GuardCounter{{"ipv4", "in", in}, {"ipv4", "out", out}} })
			rep.Store(&now)
		}
		guard(0, 0)
		r := newRecorder(func(context.Context) Report { return *rep.Load() })
		looks := 0
		r.look = func(context.Context) []flow { looks++; return []flow{{"eth0", "10.244.3.2", "10.244.1.5"}} }
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- r.Run(ctx) }()
		set := func(in, out uint64) {
			guard(in, out)
			time.Sleep(10 * time.Second)
			synctest.Wait()
		}
		time.Sleep(5 * time.Second) // between two samples
		set(0, 7)                   // packets that go out
		set(5, 7)
		set(5, 7)
		set(1, 0) // the rule was replaced
		stop()
		must(t, <-ended)
		if got := told(r, 0); looks != 1 || got != "guard eth0: plaintext from 10.244.3.2 to 10.244.1.5 arrives, and the guard drops it" {
			t.Errorf("%d looks, events: %s", looks, got)
		}
	})
}
