package wg

import (
	"bytes"
	"fmt"
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

func TestHandshakeLimitCountsAnIPv6NetworkAsOneSender(t *testing.T) {
	var d Device
	d.limits.Init()
	defer d.limits.Close()
	allowed := func(format string) (n int) {
		for i := range 200 {
			if d.allowHandshake(netip.MustParseAddr(fmt.Sprintf(format, i))) {
				n++
			}
		}
		return n
	}
	for name, c := range map[string]struct {
		addresses string
		most      int // of 200 at once
		least     int
	}{
		"one /64":              {"2001:db8:1:2::%x", 20, 1},
		"one link":             {"fe80::%x%%eth0", 20, 1},
		"a /64 each":           {"2001:db8:2:%x::1", 200, 200},
		"IPv4":                 {"192.0.2.%d", 200, 200},
		"IPv4, mapped to IPv6": {"::ffff:198.51.100.%d", 200, 200},
	} {
		if got := allowed(c.addresses); got > c.most || got < c.least {
			t.Errorf("%s: %d of 200 handshakes allowed, want %d to %d", name, got, c.least, c.most)
		}
	}
}

func TestHandshakeWorkersGrowWithTheProcessors(t *testing.T) {
	for n, want := range map[int]int{1: 1, 2: 1, 3: 1, 4: 2, 8: 4, 64: 4} {
		if got := handshakeWorkersFor(n); got != want {
			t.Errorf("%d processors: %d workers, want %d", n, got, want)
		}
	}
}
