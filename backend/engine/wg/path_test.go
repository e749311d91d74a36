package wg

import (
	"bytes"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"github.com/loden-net/loden/backend/engine/wg/conn"
	"github.com/loden-net/loden/backend/engine/wg/noise"
	"github.com/loden-net/loden/backend/engine/wg/offload"
)

// keeper is a socket that keeps what was sent last.
type keeper struct {
	memorySocket
	last []byte
	size int
}

func (k *keeper) Send(out []conn.Outgoing) error {
	k.last = k.last[:0]
	for i := range out {
		for _, p := range out[i].Pieces {
			k.last = append(k.last, p...)
		}
		k.size = out[i].Segment
	}
	return nil
}

// sink is a TUN device that takes everything.
type sink struct{ memoryTUN }

func (s *sink) Write([][]byte) error { return nil }

// halfway returns a device with one peer and the sessions of both ends of a tunnel, made
// without a handshake: what ours seals, theirs opens.
func halfway(t testing.TB) (d *Device, k *keeper, ours, theirs *session) {
	t.Helper()
	d, k = idle(), &keeper{}
	d.tunnel = &sink{}
	d.sockets.Store(&bound{v4: k})
	d.linkMTU.Store(1420)
	if err := configure(d, "public_key="+key(1)+"\nendpoint=192.0.2.2:51820\nallowed_ip=10.0.0.0/8\n"); err != nil {
		t.Fatal(err)
	}
	var p *peer
	for _, p = range d.peers {
	}
	now := d.now()
	ours = newSession(p, &noise.Keys{Send: noise.Key{1}, Receive: noise.Key{2}, Remote: 7}, 7, true, now)
	theirs = newSession(p, &noise.Keys{Send: noise.Key{2}, Receive: noise.Key{1}, Remote: 7}, 7, false, now)
	p.current.Store(ours)
	p.wakeAt.Store(1) // timers are not the matter here
	return d, k, ours, theirs
}

// superPacket is 30 kB of TCP from 10.0.0.1 to 10.0.0.2 as the kernel gives it.
func superPacket() []byte {
	const payload = 30_000
	b := make([]byte, offload.HeaderSize+40+payload)
	offload.Header{NeedsChecksum: true, Type: unix.VIRTIO_NET_HDR_GSO_TCPV4, SegmentSize: 1380, ChecksumStart: 20, ChecksumOffset: 16}.Encode(b)
	ip := b[offload.HeaderSize:]
	copy(ip, []byte{0x45, 0, (40 + payload) >> 8, (40 + payload) & 255, 0, 0, 0x40, 0, 64, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2})
	ip[20+12], ip[20+13] = 5<<4, 0x10
	return b
}

func TestDataPathAllocatesNothing(t *testing.T) {
	d, k, _, theirs := halfway(t)
	s := newSender(d)
	original := superPacket()
	packet := bytes.Clone(original)
	if got := testing.AllocsPerRun(50, func() {
		copy(packet, original)
		s.packet(packet)
		s.flush()
	}); got != 0 {
		t.Errorf("%v allocations to send a super-packet", got)
	}
	if len(k.last) < 30_000 {
		t.Fatalf("%d bytes sent", len(k.last))
	}
	r := newReceiver(d)
	d.indices.m = map[uint32]indexed{7: {theirs.peer, theirs}}
	theirs.peer.current.Store(theirs)
	theirs.peer.roam(netip.MustParseAddrPort("192.0.2.2:51820"), netip.Addr{})
	m := &r.in[0]
	m.From = netip.MustParseAddrPort("192.0.2.2:51820")
	sealed := bytes.Clone(k.last)
	before := d.counters.undecoded.Load()
	if got := testing.AllocsPerRun(50, func() {
		r.now = d.now()
		m.Size, m.Segment = copy(m.Buf, sealed), k.size
		theirs.window = window{}
		r.n = 1
		r.all()
	}); got != 0 {
		t.Errorf("%v allocations to receive a train", got)
	}
	if d.counters.undecoded.Load() != before || d.counters.misrouted.Load() != 0 {
		t.Error("the train was not taken")
	}
}

// FuzzTrain feeds a receiver what may come from outside: it must take nothing of it.
func FuzzTrain(f *testing.F) {
	f.Add([]byte{4, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16}, 32)
	f.Add(append([]byte{1}, make([]byte, 147)...), 148)
	f.Add(append([]byte{2}, make([]byte, 183)...), 92)
	d, _, ours, _ := halfway(f)
	d.indices.m = map[uint32]indexed{7: {ours.peer, ours}}
	r := newReceiver(d)
	f.Fuzz(func(t *testing.T, data []byte, segment int) {
		r.now = d.now()
		r.in[0].Size, r.in[0].Segment = copy(r.in[0].Buf, data), segment
		r.n = 1
		r.all()
		for len(d.letters) > 0 {
			d.read(<-d.letters)
		}
		if ours.peer.gotAt.Load() != 0 || ours.peer.gotBytes.Load() != 0 {
			t.Error("a message without the key was taken")
		}
	})
}

func TestGarbageFromTheTUNIsDropped(t *testing.T) {
	d, k, _, _ := halfway(t)
	s := newSender(d)
	for size := range 60 {
		for _, first := range []byte{0, 0x40, 0x45, 0x4f, 0x60, 0xff} {
			b := make([]byte, size)
			if size > offload.HeaderSize {
				b[offload.HeaderSize] = first
			}
			s.packet(b)
		}
	}
	s.flush()
	if len(k.last) != 0 {
		t.Errorf("%d bytes sent", len(k.last))
	}
}

func TestGarbageInsideTheTunnelIsDropped(t *testing.T) {
	d, _, ours, theirs := halfway(t)
	r := newReceiver(d)
	d.indices.m = map[uint32]indexed{7: {ours.peer, ours}}
	n := uint64(0)
	for size := 1; size < 60; size++ {
		for _, first := range []byte{0, 0x40, 0x45, 0x4f, 0x60, 0xff} {
			plain := make([]byte, size)
			plain[0] = first
			msg := theirs.seal(n, plain)
			n++
			r.in[0].Size, r.in[0].Segment = copy(r.in[0].Buf, msg), len(msg)
			r.in[0].From = netip.MustParseAddrPort("192.0.2.2:51820")
			r.now = d.now()
			r.n = 1
			r.all()
		}
	}
	if got := d.counters.misrouted.Load(); got != n {
		t.Errorf("%d of %d dropped", got, n)
	}
}

func TestCongestionMarksCrossTheTunnel(t *testing.T) {
	for _, c := range []struct {
		name         string
		inner, outer uint8
		want         int // the mark that arrives; -1: dropped
	}{
		{"nothing", 0, 0, 0}, {"capable", 2, 2, 2}, {"congested outside", 2, 3, 3}, {"congested outside, the other codepoint", 1, 3, 3},
		{"congested inside", 3, 3, 3}, {"congested, but not capable", 0, 3, -1},
	} {
		t.Run(c.name, func(t *testing.T) {
			for f := range 2 {
				x, y := blank(t, "", 1), blank(t, "", 2)
				pkt := datagram(x, y, f, []byte("hello"))
				if f == 0 {
					pkt[1] |= c.inner
					pkt[10], pkt[11] = 0, 0
					sum := ^offload.Sum(pkt[:20], 0)
					pkt[10], pkt[11] = byte(sum>>8), byte(sum)
				} else {
					pkt[1] |= c.inner << 4
				}
				dropped := c.outer == ce && !mark(pkt)
				got := int(congestion(pkt))
				if dropped {
					got = -1
				}
				if got != c.want {
					t.Errorf("family %d: got %d, want %d", f, got, c.want)
				}
				if f == 0 && offload.Sum(pkt[:20], 0) != 0xffff {
					t.Error("header checksum")
				}
			}
		})
	}
}

func TestClosingWhileBusyEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWire()
		a, b := ours(t, w, 1), ours(t, w, 2)
		a.meet(b, "persistent_keepalive_interval=1\n")
		b.meet(a, "persistent_keepalive_interval=1\n")
		for range 50 {
			a.in(datagram(a, b, 0, []byte("x")))
		}
		time.Sleep(1500 * time.Millisecond)
		a.stop()
		time.Sleep(time.Minute)
		b.stop()
	})
}
