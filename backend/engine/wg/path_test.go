package wg

import (
	"bytes"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"github.com/loden-net/loden/backend/engine/wg/cipher"
	"github.com/loden-net/loden/backend/engine/wg/conn"
	"github.com/loden-net/loden/backend/engine/wg/noise"
	"github.com/loden-net/loden/backend/engine/wg/offload"
	"github.com/loden-net/loden/backend/engine/wg/peer"
	"github.com/loden-net/loden/backend/engine/wg/state"
	"github.com/loden-net/loden/config/opt"
)

// keeper is a socket that keeps what was sent last.
type keeper struct {
	memorySocket
	last    []byte
	size    int
	class   uint8 // of the outer header
	refuses bool  // as a kernel without a route does
}

func (k *keeper) Send(out []conn.Outgoing) error {
	k.last = k.last[:0]
	for i := range out {
		for _, p := range out[i].Pieces {
			k.last = append(k.last, p...)
		}
		k.size, k.class = out[i].Segment, out[i].Class
		out[i].Sent = out[i].Size
		if k.refuses {
			out[i].Sent = 0
		}
	}
	return nil
}

// sink is a TUN device that takes everything.
type sink struct{ memoryTUN }

func (s *sink) Write([][]byte) error { return nil }

// tunnelEnds returns the devices at both ends of a tunnel, each with one peer and a keypair that
// was made without a handshake. The near device sends to k.
func tunnelEnds(t testing.TB) (near *Device, k *keeper, far *Device) {
	t.Helper()
	k = &keeper{}
	end := func(send, receive byte, initiator bool) *Device {
		d := idle()
		d.tunnel = &sink{}
		d.sockets.Store(&bound{v4: k})
		d.linkMTU.Store(1420)
		if err := configure(d, "public_key="+key(1)+"\nendpoint=192.0.2.2:51820\nallowed_ip=10.0.0.0/8\nallowed_ip=fd00::1/128\n"); err != nil {
			t.Fatal(err)
		}
		resume(t, d, send, receive, initiator)
		return d
	}
	return end(1, 2, true), k, end(2, 1, false)
}

// resume gives the only peer of d a fresh keypair with index 7 at both ends.
func resume(t testing.TB, d *Device, send, receive byte, initiator bool) {
	t.Helper()
	p := onlyPeer(d)
	p.Zero(d.now())
	now := d.now()
	pair := state.Keypair{Keys: noise.Keys{Send: noise.Key{send}, Receive: noise.Key{receive}, Remote: 7}, Local: 7, Initiator: initiator, Created: now}
	s := p.Export()
	s.Active = opt.Some(state.Active{OpenedAt: now, DerivedAt: now, Current: opt.Some(pair)})
	if err := p.Resume(&s); err != nil {
		t.Fatal(err)
	}
}

// onlyPeer returns the only peer of a device.
func onlyPeer(d *Device) *peer.Peer {
	for _, m := range d.peers {
		return &m.Peer
	}
	return nil
}

// sealed returns the transport message of plaintext, of the only peer's keypair.
func sealed(d *Device, counter uint64, plaintext []byte) []byte {
	k := onlyPeer(d).Current()
	msg := k.Frame(make([]byte, 0, len(plaintext)+cipher.Overhead), counter, len(plaintext))
	copy(cipher.Body(msg), plaintext)
	k.Seal([][]byte{msg})
	return msg
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
	near, k, far := tunnelEnds(t)
	s := newSender(near)
	original := superPacket()
	packet := bytes.Clone(original)
	var trains [][]byte
	for range 60 {
		copy(packet, original)
		s.packet(packet)
		s.flush()
		trains = append(trains, bytes.Clone(k.last))
	}
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
	r := newReceiver(far)
	onlyPeer(far).SetEndpointFromPacket(netip.MustParseAddrPort("192.0.2.2:51820"), netip.Addr{}, 0)
	m := &r.in[0]
	m.From = netip.MustParseAddrPort("192.0.2.2:51820")
	receive := func() {
		r.now = far.now()
		m.Size, m.Segment = copy(m.Buf, trains[0]), k.size
		trains = trains[1:]
		r.n = 1
		r.all()
	}
	receive() // grows the batch
	if got := testing.AllocsPerRun(50, receive); got != 0 {
		t.Errorf("%v allocations to receive a train", got)
	}
	if far.counters.undecoded.Load() != 0 || far.counters.misrouted.Load() != 0 || far.counters.replayed.Load() != 0 {
		t.Error("the trains were not taken")
	}
}

// FuzzTrain feeds a receiver datagrams from outside: it must not take any of them.
func FuzzTrain(f *testing.F) {
	f.Add([]byte{4, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16}, 32)
	f.Add(append([]byte{1}, make([]byte, 147)...), 148)
	f.Add(append([]byte{2}, make([]byte, 183)...), 92)
	d, _, _ := tunnelEnds(f)
	r := newReceiver(d)
	f.Fuzz(func(t *testing.T, data []byte, segment int) {
		r.now = d.now()
		r.in[0].Size, r.in[0].Segment = copy(r.in[0].Buf, data), segment
		r.n = 1
		r.all()
		for len(d.handshakes) > 0 {
			d.read(<-d.handshakes)
		}
		if onlyPeer(d).Status().Received != 0 {
			t.Error("a message without the key was taken")
		}
	})
}

func TestDataThatTheKernelRefusesIsNotSent(t *testing.T) {
	d, k, _ := tunnelEnds(t)
	s, p := newSender(d), onlyPeer(d)
	k.refuses = true
	s.packet(superPacket())
	s.flush()
	if got := p.Status().Sent; got != 0 {
		t.Errorf("%d bytes counted, want 0", got)
	}
	if at, forget := p.Deadline(), 540*time.Second; at != 0 && at-d.now() < forget-time.Second {
		t.Errorf("an answer is awaited in %v to data that was not sent", at-d.now())
	}
	if got := d.counters.unsent.Load(); got != 22 {
		t.Errorf("%d datagrams counted as not sent, want 22", got)
	}
	k.refuses = false
	s.packet(superPacket())
	s.flush()
	if got := p.Status().Sent; got != uint64(len(k.last)) {
		t.Errorf("%d bytes counted, want %d", got, len(k.last))
	}
	if at := p.Deadline(); at == 0 || at-d.now() > 15*time.Second {
		t.Errorf("the answer is awaited until %v, want 15 s", at-d.now())
	}
}

func TestGarbageFromTheTUNIsDropped(t *testing.T) {
	d, k, _ := tunnelEnds(t)
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
	d, _, far := tunnelEnds(t)
	r := newReceiver(d)
	n := uint64(0)
	for size := 1; size < 60; size++ {
		for _, first := range []byte{0, 0x40, 0x45, 0x4f, 0x60, 0xff} {
			plain := make([]byte, size)
			plain[0] = first
			msg := sealed(far, n, plain)
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
		want         int // the mark that arrives
	}{
		{"nothing", 0, 0, 0}, {"capable", 2, 2, 2}, {"congested outside", 2, 3, 3}, {"congested outside, the other codepoint", 1, 3, 3},
		{"congested inside", 3, 3, 3}, {"congested, but not capable", 0, 3, 0},
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
				got := through(t, pkt, c.outer)
				if int(congestion(got)) != c.want {
					t.Errorf("family %d: got %d, want %d", f, congestion(got), c.want)
				}
				if f == 0 && offload.Sum(got[:20], 0) != 0xffff {
					t.Error("header checksum")
				}
			}
		})
	}
}

func TestHandshakesLeaveWithAF41(t *testing.T) {
	d, k, _ := tunnelEnds(t)
	to := &peer.Endpoint{Remote: netip.MustParseAddrPort("192.0.2.2:51820")}
	for _, c := range []struct {
		kind byte
		want uint8
	}{{noise.TypeInitiation, 0x88}, {noise.TypeResponse, 0x88}, {noise.TypeCookie, 0}, {noise.TypeTransport, 0}} {
		d.sendMessage(peer.Datagram{To: to, Message: []byte{c.kind, 0, 0, 0}})
		if k.class != c.want {
			t.Errorf("message of type %d leaves with traffic class %#x, want %#x", c.kind, k.class, c.want)
		}
	}
}

// through returns pkt as it leaves a tunnel whose outer header carried a congestion mark.
func through(t *testing.T, pkt []byte, outer uint8) []byte {
	t.Helper()
	near, _, far := tunnelEnds(t)
	tun := newMemoryTUN()
	far.tunnel = tun
	r := newReceiver(far)
	r.in[0].Size = copy(r.in[0].Buf, sealed(near, 0, pkt))
	r.in[0].Segment, r.in[0].ECN, r.in[0].From = r.in[0].Size, outer, netip.MustParseAddrPort("192.0.2.2:51820")
	r.now, r.n = far.now(), 1
	r.all()
	select {
	case got := <-tun.out:
		return got
	default:
		t.Fatal("dropped")
		return nil
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
