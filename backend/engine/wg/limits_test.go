package wg

import (
	"bytes"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/loden-net/loden/backend/engine/wg/noise"
	"github.com/loden-net/loden/backend/engine/wg/peer"
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
		if b.device.counters.rejected.Load() != 1 || !b.only().Idle() {
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
		i := handshakeItem{size: noise.InitiationSize, from: peer.Endpoint{Remote: netip.MustParseAddrPort("203.0.113.1:1")}}
		copy(i.raw[:], flood.data)
		b.device.mu.Lock() // holds the idle handshake worker, which looks for the peer, while the queue fills
		for range handshakeQueueSize + 10 {
			b.device.enqueue(i)
		}
		b.device.mu.Unlock()
		synctest.Wait()
		if b.device.counters.cookies.Load() == 0 {
			t.Error("no cookie was asked of a flood")
		}
	})
}

func TestDeadPeerHoldsAFewPackets(t *testing.T) {
	bubble(t, func(t *testing.T, w *wire, a, b *node) {
		a.meet(b, "")
		w.decide(func(parcel) int { return 0 })
		for n := range 1000 {
			a.in(datagram(a, b, 0, bytes.Repeat([]byte{byte(n)}, 1300)))
		}
		synctest.Wait()
		held := a.device.local.StagedBytes()
		if held == 0 || held > 64<<10 {
			t.Errorf("%d bytes held for a dead peer, want at most %d", held, 64<<10)
		}
		time.Sleep(100 * time.Second)
		if held := a.device.local.StagedBytes(); held != 0 {
			t.Errorf("%d bytes held after the handshake was given up", held)
		}
	})
}
