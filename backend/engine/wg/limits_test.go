package wg

import (
	"bytes"
	"net/netip"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/loden-net/loden/backend/engine/wg/noise"
)

func TestInitiationWithoutMAC1CostsNothing(t *testing.T) {
	bubble(t, func(t *testing.T, w *wire, a, b *node) {
		a.meet(b, "")
		b.meet(a, "")
		w.decide(func(p parcel) int {
			if p.data[0] == noise.TypeInitiation {
				p.data[120] ^= 1 // the code is the last thing but 16 bytes
			}
			return 1
		})
		a.in(datagram(a, b, 0, []byte("x")))
		synctest.Wait()
		if b.device.counters.rejected.Load() != 1 || b.only().talks() {
			t.Error("read all the same")
		}
	})
}

func TestCookieIsDemandedUnderLoad(t *testing.T) {
	pairs(t, func(t *testing.T, w *wire, a, b *node) {
		if b.device == nil {
			a, b = b, a // the loaded side is ours: it can be told that it is
		}
		a.meet(b, "")
		b.meet(a, "")
		var r tape
		r.on(w)
		b.device.loaded.Store(int64(b.device.now()))
		a.in(datagram(a, b, 0, []byte("let me in")))
		synctest.Wait()
		if len(r.of(noise.TypeCookie, a.outer)) != 1 || len(r.of(noise.TypeResponse, a.outer)) != 0 {
			t.Fatal("want a cookie and no response")
		}
		b.device.loaded.Store(int64(b.device.now() + 10*time.Second)) // still loaded at the retry
		b.hears(datagram(a, b, 0, []byte("let me in")))
		if n := b.device.counters.cookies.Load(); n != 1 {
			t.Errorf("%d cookies, want one: the second attempt carries it", n)
		}
	})
}

func TestFloodOfHandshakesTurnsLoadOn(t *testing.T) {
	bubble(t, func(t *testing.T, w *wire, a, b *node) {
		a.meet(b, "")
		b.meet(a, "")
		var r tape
		r.on(w)
		a.in(datagram(a, b, 0, []byte("x")))
		synctest.Wait()
		flood := r.of(noise.TypeInitiation, b.outer)[0]
		l := letter{size: noise.InitiationSize, from: netip.MustParseAddrPort("203.0.113.1:1")}
		copy(l.raw[:], flood.data)
		b.device.self.Load() // the clerk is idle now: hold it while the queue fills
		p := b.only()
		p.mu.Lock()
		for range clerkQueue + 10 {
			b.device.post(l)
		}
		p.mu.Unlock()
		synctest.Wait()
		if b.device.counters.cookies.Load() == 0 {
			t.Error("no cookie was asked of a flood")
		}
	})
}

func TestSessionIsRenewedAfterManyMessages(t *testing.T) {
	bubble(t, func(t *testing.T, w *wire, a, b *node) {
		a.meet(b, "")
		b.meet(a, "")
		a.says(b, 0, "one")
		b.says(a, 0, "two")
		time.Sleep(10 * time.Second)
		before := b.only().current.Load()
		// The responder renews by count as well: nobody else can know its counter.
		before.counter.Store(rekeyAfterMessages)
		b.says(a, 0, "the last one")
		time.Sleep(time.Second)
		b.says(a, 0, "the first one")
		if after := b.only().current.Load(); after == before {
			t.Error("still the same session")
		}
	})
}

func TestUsedUpCounterSendsNothing(t *testing.T) {
	bubble(t, func(t *testing.T, w *wire, a, b *node) {
		a.meet(b, "")
		b.meet(a, "")
		a.says(b, 0, "one")
		s := a.only().current.Load()
		s.counter.Store(rejectAfterMessages - 1)
		if _, ok := s.reserve(1); ok {
			t.Error("a counter past the limit was given")
		}
		if _, ok := s.reserve(1 << 20); ok || s.usable(a.device.now()) {
			t.Error("the session goes on")
		}
		time.Sleep(6 * time.Second)
		a.in(datagram(a, b, 0, []byte("two")))
		b.hears(datagram(a, b, 0, []byte("two"))) // with new keys
	})
}

func TestUsedUpCounterNeverWrapsWhoeverReserves(t *testing.T) {
	var s session
	s.counter.Store(rejectAfterMessages - 1)
	var group sync.WaitGroup
	for range 4 {
		group.Go(func() {
			for range 100_000 {
				if from, ok := s.reserve(1 << 20); ok {
					t.Errorf("counter %d was given", from)
					return
				}
			}
		})
	}
	group.Wait()
}

func TestDeadPeerHoldsAFewPackets(t *testing.T) {
	bubble(t, func(t *testing.T, w *wire, a, b *node) {
		a.meet(b, "")
		w.decide(func(parcel) int { return 0 })
		for n := range 1000 {
			a.in(datagram(a, b, 0, bytes.Repeat([]byte{byte(n)}, 1300)))
		}
		synctest.Wait()
		held := a.device.staged.used.Load()
		if held == 0 || held > maxStagedBytes {
			t.Errorf("%d bytes held for one dead peer, want at most %d", held, maxStagedBytes)
		}
		time.Sleep(100 * time.Second)
		if held := a.device.staged.used.Load(); held != 0 {
			t.Errorf("%d bytes held after the handshake was given up", held)
		}
	})
}
