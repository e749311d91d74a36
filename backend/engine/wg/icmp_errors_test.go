package wg

import (
	"bytes"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"github.com/loden-net/loden/backend/engine/wg/icmp"
	"github.com/loden-net/loden/backend/engine/wg/offload"
)

// answers returns what a node hears within no time.
func (x *node) answers() (out [][]byte) {
	synctest.Wait()
	for len(x.out) > 0 {
		out = append(out, <-x.out)
	}
	return out
}

func TestSenderIsToldThatThereIsNoPeer(t *testing.T) {
	bubble(t, func(t *testing.T, w *wire, a, b *node) {
		a.mustSet("public_key=%s\nallowed_ip=%s/32\n", b.public.Hex(), b.inner[0]) // no endpoint
		for f := range 2 {
			p := datagram(a, b, f, []byte("hello"))
			a.in(bytes.Clone(p))
			a.hears(icmp.Unreachable(nil, p))
		}
		if got := a.device.counters.unroutable.Load(); got != 2 {
			t.Errorf("%d packets counted, want 2", got)
		}
	})
}

func TestSenderIsNotToldWithoutEnd(t *testing.T) {
	bubble(t, func(t *testing.T, w *wire, a, b *node) {
		flood := func() int {
			for range 100 {
				a.in(datagram(a, b, 0, nil))
			}
			return len(a.answers())
		}
		if got := flood(); got != 10 {
			t.Errorf("%d answers at once, want 10", got)
		}
		other := blank(t, "", 5)
		a.in(datagram(other, b, 0, nil))
		if got := len(a.answers()); got != 1 {
			t.Errorf("%d answers to another sender, want 1", got)
		}
		time.Sleep(300 * time.Millisecond)
		if got := flood(); got != 3 {
			t.Errorf("%d answers 0.3 s later, want 3", got)
		}
		time.Sleep(time.Minute)
		if got := flood(); got != 10 {
			t.Errorf("%d answers a minute later, want 10", got)
		}
	})
}

func TestSenderIsToldThatAPacketIsTooLarge(t *testing.T) {
	for _, c := range []struct {
		name   string
		family int
		size   int // of the packet; the MTU is 1420
		more   bool
		want   bool
	}{
		{"fits", 0, 1420, false, false}, {"too large", 0, 1421, false, true},
		{"may be fragmented", 0, 1421, true, false},
		{"fits, IPv6", 1, 1420, false, false}, {"too large, IPv6", 1, 1421, false, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *wire, a, b *node) {
				a.meet(b, "")
				b.meet(a, "")
				header := len(datagram(a, b, c.family, nil))
				p := datagram(a, b, c.family, make([]byte, c.size-header))
				if c.more {
					p[6] = 0
				}
				a.in(bytes.Clone(p))
				if c.want {
					a.hears(icmp.TooBig(nil, p, 1420))
				} else {
					b.hears(p)
				}
				if told := len(a.answers()) > 0; told {
					t.Error("told once more")
				}
			})
		})
	}
}

func TestSuperPacketIsRefusedByItsSegments(t *testing.T) {
	d, k, _ := tunnelEnds(t)
	tun := newMemoryTUN() // its MTU is 1420
	d.tunnel = tun
	s := newSender(d)
	send := func(segment uint16) {
		b := superPacket()
		h := offload.Decode(b)
		h.SegmentSize = segment
		h.Encode(b)
		s.packet(b)
		s.flush()
	}
	d.linkMTU.Store(1280) // the interface has had a larger one for a moment
	send(1380)
	if len(k.last) == 0 || len(tun.out) != 0 || d.linkMTU.Load() != 1420 {
		t.Fatal("refused because of an MTU that is no more")
	}
	k.last = nil
	send(1381)
	if len(k.last) != 0 || len(tun.out) != 1 {
		t.Fatalf("%d bytes sent, %d answers", len(k.last), len(tun.out))
	}
	answer := <-tun.out
	quoted := answer[28:]
	if size := int(quoted[2])<<8 | int(quoted[3]); size != 1421 {
		t.Errorf("a packet of %d bytes is refused, want that of the first segment", size)
	}
}

func TestRefusalAllocatesNothing(t *testing.T) {
	d, k, _ := tunnelEnds(t)
	s := newSender(d)
	b := append(make([]byte, offload.HeaderSize), datagram(blank(t, "", 1), blank(t, "", 2), 1, nil)...)
	large := superPacket()
	large[4], large[5] = 0xff, 0x0f // a segment size of 4,095 bytes or more
	p := bytes.Clone(large)
	before := d.counters.unroutable.Load()
	if got := testing.AllocsPerRun(50, func() {
		for i := range d.refusals.limits {
			d.refusals.limits[i].full.Store(0)
		}
		s.packet(b)
		copy(p, large)
		s.packet(p)
	}); got != 0 {
		t.Errorf("%v allocations to refuse two packets", got)
	}
	if d.counters.unroutable.Load() == before || d.counters.tooBig.Load() == 0 || len(k.last) != 0 {
		t.Error("not refused")
	}
}

// FuzzRefusal feeds a sender what a TUN could give where nothing is carried: what it hears
// is about the packet, or nothing.
func FuzzRefusal(f *testing.F) {
	f.Add(superPacket())
	for family := range 2 {
		f.Add(append(make([]byte, offload.HeaderSize), datagram(&node{inner: []netip.Addr{netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("fd00::1")}},
			&node{inner: []netip.Addr{netip.MustParseAddr("10.0.0.2"), netip.MustParseAddr("fd00::2")}}, family, nil)...))
	}
	d := idle()
	tun := newMemoryTUN()
	d.tunnel = tun
	s := newSender(d)
	f.Fuzz(func(t *testing.T, b []byte) {
		for i := range d.refusals.limits {
			d.refusals.limits[i].full.Store(0)
		}
		s.packet(b)
		for len(tun.out) > 0 {
			got := <-tun.out
			protocol, at := got[9], 20
			if got[0]>>4 == 6 {
				protocol, at = got[6], 40
			}
			if (protocol != unix.IPPROTO_ICMP || got[at] != 3) && (protocol != unix.IPPROTO_ICMPV6 || got[at] != 1) {
				t.Errorf("heard %x", got)
			}
		}
	})
}
