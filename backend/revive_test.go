package backend

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/loden-net/loden/config/opt"
)

func TestNewEngineBeginsHandshakesWithThePeersOfTheCrashedEngine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		at := netip.MustParseAddrPort("192.0.2.2:51820")
		n := newFakeNode(t, NewFake(), Peer{Key: key(2), Endpoint: at}, Peer{Key: key(3), Endpoint: at, Keepalive: 10 * time.Second})
		if slices.Contains(n.Calls(), "keepalive of 1 peers on") {
			t.Errorf("the first engine of a host revives sessions: %q", n.Calls())
		}
		n.Crash()
		n.want.Peers = n.want.Peers.With(Peer{Key: key(4), Endpoint: at}) // new: it never had a session
		before := len(n.Calls())
		made := n.apply()
		if last := made[len(made)-1]; last != "device: begin handshakes with 2 peers of the device before this" {
			t.Errorf("the last change is %q of %q", last, made)
		}
		want := []string{"start engine loden", "listen on 51820", "configure 3 peers", "configure 1 peers", "keepalive of 1 peers on", "configure 1 peers"}
		if got := n.Calls()[before:]; !slices.Equal(got, want) {
			t.Errorf("got  %q\nwant %q", got, want)
		}
		for _, p := range n.wg.peers {
			if want := map[byte]time.Duration{2: 0, 3: 10 * time.Second, 4: 0}[p.key[0]]; p.keepalive != want {
				t.Errorf("peer %d is left with keepalive %v", p.key[0], p.keepalive)
			}
		}
	})
}

func TestOnlyPeersWithALiveSessionAreRevivedInALargeNetwork(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		at := netip.MustParseAddrPort("192.0.2.2:51820")
		n := newFakeNode(t, NewFake())
		for i := range reviveAll + 10 {
			p := Peer{Key: key(1), Endpoint: at}
			p.Key[1], p.Key[2] = byte(i>>8), byte(i)
			n.want.Peers = n.want.Peers.With(p)
		}
		n.apply()
		n.Hear(n.want.Peers.Slice()[7].Key, at)
		n.Hear(n.want.Peers.Slice()[8].Key, at)
		if _, err := n.device.Status(t.Context()); err != nil {
			t.Fatal(err)
		}
		time.Sleep(SessionLife - time.Second)
		n.Hear(n.want.Peers.Slice()[8].Key, at)
		n.apply()
		time.Sleep(2 * time.Second) // the session with peer 7 has ended
		n.Crash()
		made := n.apply()
		if last := made[len(made)-1]; last != "device: begin handshakes with 1 peers of the device before this" {
			t.Errorf("the last change is %q", last)
		}
	})
}

func TestFamiliesStandAloneOnATunnelThatIsTooNarrowForIPv6(t *testing.T) {
	v4, v6 := netip.MustParseAddr("10.244.1.0"), netip.MustParseAddr("fd44:1::")
	both := opt.Dual[netip.Addr]{}.With(opt.V4, v4).With(opt.V6, v6)
	for mtu, want := range map[int]int{MinIPv6MTU: 2, MinIPv6MTU - 1: 1} {
		edits := linkEdits(link{mtu: mtu}, Config{MTU: mtu, Addresses: both})
		if len(edits) != want || !strings.Contains(edits[0].address.String(), v4.String()) {
			t.Errorf("MTU %d: %+v", mtu, edits)
		}
	}
}
