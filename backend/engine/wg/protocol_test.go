package wg

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"github.com/loden-net/loden/backend/engine/wg/noise"
	"github.com/loden-net/loden/backend/engine/wg/offload"
	"github.com/loden-net/loden/backend/engine/wg/peer"
)

// tape records what goes over a wire.
type tape struct {
	mu  sync.Mutex
	all []parcel
}

func (r *tape) on(w *wire) {
	w.decide(func(p parcel) int {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.all = append(r.all, parcel{p.from, p.to, bytes.Clone(p.data)})
		return 1
	})
}

// of returns the messages of a type that were sent to an address.
func (r *tape) of(kind byte, to netip.AddrPort) (out []parcel) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, p := range r.all {
		if p.data[0] == kind && p.to == to {
			out = append(out, p)
		}
	}
	return out
}

// bubble runs a test with two nodes of ours on virtual time.
func bubble(t *testing.T, test func(t *testing.T, w *wire, a, b *node)) {
	synctest.Test(t, func(t *testing.T) {
		w := newWire()
		a, b := ours(t, w, 1), ours(t, w, 2)
		defer a.stop()
		defer b.stop()
		test(t, w, a, b)
	})
}

// only returns the only peer of a node of ours.
func (x *node) only() *peer.Peer {
	x.device.mu.RLock()
	defer x.device.mu.RUnlock()
	for _, m := range x.device.peers {
		return &m.Peer
	}
	return nil
}

func TestOldInitiationIsNotAnsweredAgain(t *testing.T) {
	bubble(t, func(t *testing.T, w *wire, a, b *node) {
		a.meet(b, "")
		b.meet(a, "")
		var r tape
		r.on(w)
		a.says(b, 0, "hello")
		old := r.of(noise.TypeInitiation, b.outer)[0]
		time.Sleep(time.Minute)
		answers := len(r.of(noise.TypeResponse, a.outer))
		w.carry(old)
		synctest.Wait()
		if got := len(r.of(noise.TypeResponse, a.outer)); got != answers {
			t.Error("a replayed initiation was answered")
		}
		if b.device.counters.rejected.Load() != 1 {
			t.Errorf("%d messages rejected, want 1", b.device.counters.rejected.Load())
		}
	})
}

func TestInitiationOfAnIdlePeerIsAnswered(t *testing.T) {
	bubble(t, func(t *testing.T, w *wire, a, b *node) {
		a.meet(b, "")
		b.meet(a, "")
		for range 3 {
			a.says(b, 0, "hello")
			time.Sleep(30 * time.Minute)
			if !b.only().Idle() || !a.only().Idle() {
				t.Fatal("keys kept for half an hour")
			}
			if n := b.device.local.Indices(); n != 0 {
				t.Fatalf("%d indices kept", n)
			}
		}
	})
}

func TestCrossedHandshakesAreOverWhenOneIs(t *testing.T) {
	bubble(t, func(t *testing.T, w *wire, a, b *node) {
		a.meet(b, "")
		b.meet(a, "")
		var r tape
		r.on(w)
		w.fate = func(inner func(parcel) int) func(parcel) int {
			return func(p parcel) int { // the answer to a is lost, that to b is not
				if inner(p); p.data[0] == noise.TypeResponse && p.to == a.outer {
					return 0
				}
				return 1
			}
		}(w.fate)
		a.in(datagram(a, b, 0, []byte("x")))
		b.in(datagram(b, a, 0, []byte("y")))
		time.Sleep(12 * time.Second) // two retries; at 15 s silence would be a reason of its own
		if n := len(r.of(noise.TypeInitiation, b.outer)); n > 1 {
			t.Errorf("%d initiations by the side whose answer was lost, though there is a session", n)
		}
	})
}

// TestSuperPacketArrivesWhole sends one that is cut to pieces which need padding: padding
// must not harm the payload behind it.
func TestSuperPacketArrivesWhole(t *testing.T) {
	bubble(t, func(t *testing.T, w *wire, a, b *node) {
		a.meet(b, "")
		b.meet(a, "")
		a.says(b, 0, "hello")
		for _, segment := range []int{1, 7, 333, 1000, 1367, 1380} {
			payload := bytes.Repeat([]byte("All work and no play makes Jack a dull boy. "), 100)
			pkt := datagram(a, b, 0, payload)
			h := offload.Header{NeedsChecksum: true, Type: unix.VIRTIO_NET_HDR_GSO_UDP_L4, SegmentSize: uint16(segment), ChecksumStart: 20, ChecksumOffset: 6}
			a.inSuper(h, pkt)
			var got []byte
			for len(got) < len(payload) {
				select {
				case p := <-b.out:
					got = append(got, p[28:]...)
				case <-time.After(time.Second):
					t.Fatalf("segments of %d: %d of %d bytes arrived", segment, len(got), len(payload))
				}
			}
			if !bytes.Equal(got, payload) {
				t.Errorf("segments of %d: altered", segment)
			}
		}
	})
}

func TestReplayedTransportIsDropped(t *testing.T) {
	bubble(t, func(t *testing.T, w *wire, a, b *node) {
		a.meet(b, "")
		b.meet(a, "")
		var r tape
		r.on(w)
		for n := range 5 {
			a.says(b, 0, fmt.Sprint("once ", n))
		}
		data := r.of(noise.TypeTransport, b.outer)
		for _, p := range data {
			w.carry(p)
		}
		b.hearsNothing(time.Second)
		if got := b.device.counters.replayed.Load(); got != uint64(len(data)) {
			t.Errorf("%d replays counted, want %d", got, len(data))
		}
	})
}

func TestReplayFromElsewhereDoesNotMoveThePeer(t *testing.T) {
	bubble(t, func(t *testing.T, w *wire, a, b *node) {
		a.meet(b, "")
		b.meet(a, "")
		var r tape
		r.on(w)
		a.says(b, 0, "me")
		p := r.of(noise.TypeTransport, b.outer)[0]
		p.from = netip.MustParseAddrPort("203.0.113.1:1")
		w.carry(p)
		p.data = bytes.Clone(p.data)
		p.data[len(p.data)-1] ^= 1
		binary.LittleEndian.PutUint64(p.data[8:], 99)
		w.carry(p)
		synctest.Wait()
		if got := b.value("endpoint"); got != a.outer.String() {
			t.Errorf("the peer moved to %s", got)
		}
	})
}

func TestRemovedPeerIsSilent(t *testing.T) {
	bubble(t, func(t *testing.T, w *wire, a, b *node) {
		a.meet(b, "persistent_keepalive_interval=1\n")
		b.meet(a, "")
		a.says(b, 0, "hello")
		a.mustSet("public_key=%s\nremove=true\n", b.public.Hex())
		b.in(datagram(b, a, 0, []byte("hello?")))
		a.hearsNothing(10 * time.Second)
		if n := a.device.local.Indices(); n != 0 {
			t.Errorf("%d indices left", n)
		}
		if strings.Contains(a.get(), "public_key") {
			t.Error("still listed")
		}
	})
}

// A packet may be lost: wireguard-go (ecfc5a8d5446) sometimes forgets a handshake that
// crosses its own ("invalid state for keypair derivation"). Ours does not.
func TestBothSidesMayBeginAtOnce(t *testing.T) {
	introduced(t, func(t *testing.T, w *wire, a, b *node) {
		for range 3 {
			a.in(datagram(a, b, 0, []byte("me first")))
			b.in(datagram(b, a, 0, []byte("no, me")))
			if a.device != nil && b.device != nil {
				b.hears(datagram(a, b, 0, []byte("me first")))
				a.hears(datagram(b, a, 0, []byte("no, me")))
			}
			time.Sleep(40 * time.Second)
			for _, x := range []*node{a, b} {
				for len(x.out) > 0 {
					<-x.out
				}
				select {
				case <-x.out:
				case <-time.After(time.Second):
				}
			}
			a.says(b, 0, "after you")
			b.says(a, 0, "after you")
			time.Sleep(time.Hour)
		}
	})
}

func TestMovingToTheOtherFamilyLosesNothing(t *testing.T) {
	bubble(t, func(t *testing.T, w *wire, a, b *node) {
		a.meet(b, "")
		b.meet(a, "")
		a.says(b, 0, "by IPv4")
		b.says(a, 0, "by IPv4")
		a.mustSet("public_key=%s\nendpoint=[%s]:51820\n", b.public.Hex(), b.outer6())
		for n := range 5 {
			a.says(b, 0, fmt.Sprint("by IPv6 ", n))
			b.says(a, 0, fmt.Sprint("by IPv6 ", n))
		}
		if got := b.value("endpoint"); !strings.HasPrefix(got, "[") {
			t.Errorf("endpoint %s", got)
		}
	})
}
