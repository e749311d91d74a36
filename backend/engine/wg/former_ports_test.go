package wg

import (
	"fmt"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"
)

func TestPacketsToThePortBeforeArriveAfterAChangeOfThePort(t *testing.T) {
	bubble(t, func(t *testing.T, w *wire, a, b *node) {
		a.meet(b, "")
		b.meet(a, "")
		a.says(b, 0, "a session")
		var r tape
		r.on(w)
		w.decide(func(p parcel) int { // what b sends is still under way: a does not know the new port
			if p.from.Addr() == b.outer.Addr() && p.from.Port() != b.outer.Port() {
				return 0
			}
			return 1
		})
		b.mustSet("listen_port=4242\n")
		for i := range 10 {
			a.says(b, 0, fmt.Sprintf("to the port before, %d", i))
		}
		time.Sleep(formerPortFor + time.Second)
		w.mu.Lock()
		defer w.mu.Unlock()
		if _, open := w.ports[b.outer]; open {
			t.Error("the port before stays open")
		}
	})
}

func TestPeersLearnANewPortAtOnce(t *testing.T) {
	bubble(t, func(t *testing.T, w *wire, a, b *node) {
		a.meet(b, "")
		b.meet(a, "")
		a.says(b, 0, "a session")
		b.mustSet("listen_port=4242\n")
		synctest.Wait()
		if got, want := a.value("endpoint"), netip.AddrPortFrom(b.outer.Addr(), 4242).String(); got != want {
			t.Errorf("the peer sends to %s, want %s", got, want)
		}
	})
}

func TestPortThatComesBackIsOpenedAgain(t *testing.T) {
	bubble(t, func(t *testing.T, w *wire, a, b *node) {
		a.meet(b, "")
		b.meet(a, "")
		a.says(b, 0, "a session")
		for _, port := range []uint16{4242, b.outer.Port(), 4243, 4242} {
			b.mustSet("listen_port=%d\n", port)
			a.says(b, 0, "after a change of the port")
		}
		b.device.mu.RLock()
		former := len(b.device.former)
		b.device.mu.RUnlock()
		if former != 2 {
			t.Errorf("%d former ports are open, want 2", former)
		}
		b.link(false)
		synctest.Wait()
		if b.device.mu.RLock(); len(b.device.former) != 0 {
			t.Error("former ports stay open while the interface is down")
		}
		b.device.mu.RUnlock()
	})
}
