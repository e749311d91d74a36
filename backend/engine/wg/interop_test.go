package wg

import (
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/loden-net/loden/backend/engine/wg/noise"
)

// pairs runs a test with every pair of makes in which ours is, on virtual time.
func pairs(t *testing.T, test func(t *testing.T, w *wire, a, b *node)) {
	for _, pair := range []struct {
		name string
		a, b maker
	}{{"ours with ours", ours, ours}, {"ours with theirs", ours, theirs}, {"theirs with ours", theirs, ours}} {
		t.Run(pair.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWire()
				a, b := pair.a(t, w, 1), pair.b(t, w, 2)
				defer a.stop()
				defer b.stop()
				test(t, w, a, b)
			})
		})
	}
}

// introduced is pairs with the two nodes as peers.
func introduced(t *testing.T, test func(t *testing.T, w *wire, a, b *node)) {
	pairs(t, func(t *testing.T, w *wire, a, b *node) {
		a.meet(b, "")
		b.meet(a, "")
		test(t, w, a, b)
	})
}

func TestBothSidesTalkInBothFamilies(t *testing.T) {
	introduced(t, func(t *testing.T, _ *wire, a, b *node) {
		for n := range 3 {
			for f := range 2 {
				a.says(b, f, fmt.Sprint("to you ", n))
				b.says(a, f, fmt.Sprint("and back, at some length ", n))
			}
		}
		if a.value("last_handshake_time_sec") == "0" || b.value("last_handshake_time_sec") == "0" {
			t.Error("no handshake time")
		}
	})
}

func TestPresharedKeyMustAgree(t *testing.T) {
	key := func(digit string) string { return "preshared_key=" + strings.Repeat(digit, 64) + "\n" }
	pairs(t, func(t *testing.T, _ *wire, a, b *node) {
		a.meet(b, key("1"))
		b.meet(a, key("2"))
		a.in(datagram(a, b, 0, []byte("psst")))
		b.hearsNothing(20 * time.Second)
		b.mustSet("public_key=%s\n%s", a.public.Hex(), key("1"))
		b.hears(datagram(a, b, 0, []byte("psst"))) // staged until the retry that succeeds
		b.says(a, 1, "aha")
	})
}

func TestSessionIsRenewedWhileDataFlows(t *testing.T) {
	introduced(t, func(t *testing.T, _ *wire, a, b *node) {
		seen := map[string]bool{}
		for range 400 { // 400 s: three times the life of a session
			a.says(b, 0, "tick")
			b.says(a, 0, "tock")
			seen[a.value("last_handshake_time_sec")] = true
			time.Sleep(time.Second)
		}
		if len(seen) != 4 {
			t.Errorf("%d handshakes in 400 s, want 4: at 0, 120, 240 and 360", len(seen))
		}
	})
}

func TestSessionIsRenewedWhenItsInitiatorOnlyListens(t *testing.T) {
	introduced(t, func(t *testing.T, w *wire, a, b *node) {
		var r tape
		r.on(w)
		a.says(b, 0, "hello") // a is the initiator
		for range 300 {
			b.says(a, 0, "a monologue")
			time.Sleep(time.Second)
		}
		if n := len(r.of(noise.TypeInitiation, a.outer)); n != 0 {
			t.Errorf("%d initiations by the side that talks: the session was left to expire", n)
		}
	})
}

func TestConversationResumesAfterALongSilence(t *testing.T) {
	introduced(t, func(t *testing.T, _ *wire, a, b *node) {
		a.says(b, 0, "see you")
		for _, silence := range []time.Duration{3 * time.Minute, 20 * time.Minute} {
			time.Sleep(silence)
			b.says(a, 0, "back again")
			a.says(b, 1, "welcome")
		}
	})
}

func TestReceivedDataIsAcknowledgedByAKeepalive(t *testing.T) {
	introduced(t, func(t *testing.T, _ *wire, a, b *node) {
		a.says(b, 0, "anybody?")
		time.Sleep(time.Second)
		before := a.number("rx_bytes")
		time.Sleep(8 * time.Second)
		if got := a.number("rx_bytes") - before; got != 0 {
			t.Errorf("%d bytes before the keepalive was due", got)
		}
		time.Sleep(3 * time.Second)
		if got := a.number("rx_bytes") - before; got != 32 {
			t.Errorf("%d bytes 12 s after data, want one keepalive of 32", got)
		}
		time.Sleep(60 * time.Second)
		if got := a.number("rx_bytes") - before; got != 32 {
			t.Errorf("keepalives answer keepalives: %d bytes", got)
		}
	})
}

func TestPersistentKeepaliveKeepsTalking(t *testing.T) {
	pairs(t, func(t *testing.T, _ *wire, a, b *node) {
		b.meet(a, "")
		a.meet(b, "persistent_keepalive_interval=5\n")
		time.Sleep(time.Second)
		if b.value("last_handshake_time_sec") == "0" {
			t.Fatal("no handshake without data")
		}
		before := b.number("rx_bytes")
		time.Sleep(51 * time.Second)
		if got := (b.number("rx_bytes") - before) / 32; got < 9 || got > 11 {
			t.Errorf("%d keepalives in 51 s, want 10", got)
		}
	})
}

func TestSilenceAfterDataBringsAHandshake(t *testing.T) {
	introduced(t, func(t *testing.T, w *wire, a, b *node) {
		a.says(b, 0, "hello")
		b.says(a, 0, "hello")
		time.Sleep(time.Minute)
		var initiations atomic.Int64
		w.decide(func(p parcel) int {
			if p.from == a.outer && p.data[0] == 1 {
				initiations.Add(1)
			}
			return 0 // the wire is cut
		})
		a.in(datagram(a, b, 0, []byte("hello?")))
		time.Sleep(14 * time.Second)
		if initiations.Load() != 0 {
			t.Error("a handshake before 15 s of silence")
		}
		time.Sleep(2 * time.Second)
		if n := initiations.Load(); n != 1 {
			t.Errorf("%d initiations after 16 s of silence, want 1", n)
		}
		time.Sleep(200 * time.Second)
		if n := initiations.Load(); n < 17 || n > 20 {
			t.Errorf("%d initiations before giving up, want about 18", n)
		}
		w.decide(nil)
		a.says(b, 0, "there you are")
	})
}

func TestPeerIsFollowedWhereItGoes(t *testing.T) {
	introduced(t, func(t *testing.T, w *wire, a, b *node) {
		a.says(b, 0, "here I am")
		b.says(a, 0, "I see")
		before := a.outer
		a.mustSet("listen_port=4242\n")
		a.says(b, 0, "I moved")
		if want := strings.Replace(before.String(), "51820", "4242", 1); b.value("endpoint") != want {
			t.Errorf("endpoint %s, want %s", b.value("endpoint"), want)
		}
		b.says(a, 0, "I noticed")
	})
}

func TestRepeatedMessagesArriveOnce(t *testing.T) {
	introduced(t, func(t *testing.T, w *wire, a, b *node) {
		both := a.device != nil && b.device != nil
		w.decide(func(p parcel) int {
			if p.data[0] != noise.TypeTransport && !both {
				return 1 // several workers of wireguard-go may trip over one handshake message
			}
			return 3
		})
		for n := range 20 {
			a.says(b, 0, fmt.Sprint("once ", n))
			b.says(a, 1, fmt.Sprint("only ", n))
		}
		b.hearsNothing(time.Second)
		a.hearsNothing(time.Second)
	})
}

func TestKeyChangeAtRunTime(t *testing.T) {
	introduced(t, func(t *testing.T, w *wire, a, b *node) {
		a.says(b, 0, "old key")
		old := a.public
		fresh := blank(t, "", 1)
		a.private, a.public = fresh.private, fresh.public
		a.mustSet("private_key=%s\n", a.private.Hex())
		b.mustSet("public_key=%s\nremove=true\n", old.Hex())
		b.meet(a, "")
		a.says(b, 0, "new key")
		b.says(a, 1, "taken")
	})
}

func TestForeignInnerAddressIsDropped(t *testing.T) {
	introduced(t, func(t *testing.T, w *wire, a, b *node) {
		a.says(b, 0, "it is me")
		liar := &node{inner: blank(t, "", 9).inner}
		a.in(datagram(liar, b, 0, []byte("it is somebody else")))
		a.in(datagram(liar, b, 1, []byte("it is somebody else")))
		b.hearsNothing(time.Second)
		a.says(b, 0, "me again")
	})
}

func TestLossAndReorderingAreSurvived(t *testing.T) {
	introduced(t, func(t *testing.T, w *wire, a, b *node) {
		n := 0
		var held []parcel
		w.decide(func(p parcel) int {
			n++
			if n%20 == 0 {
				return 0
			}
			if n%7 == 0 && p.data[0] == 4 { // hold back one, and let an older one go
				held = append(held, parcel{p.from, p.to, append([]byte(nil), p.data...)})
				if len(held) > 3 {
					select {
					case w.ports[held[0].to] <- held[0]:
					default:
					}
					held = held[1:]
				}
				return 0
			}
			return 1
		})
		got := 0
		for i := range 500 {
			a.in(datagram(a, b, i%2, []byte(fmt.Sprint("packet ", i))))
			time.Sleep(time.Second)
			for len(b.out) > 0 {
				<-b.out
				got++
			}
			select {
			case <-b.out:
				got++
			default:
			}
		}
		if got < 400 {
			t.Errorf("%d of 500 packets arrived through 5 %% loss", got)
		}
	})
}
