package wg

import (
	"maps"
	"math"
	"net/netip"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/loden-net/loden/backend/engine/wg/noise"
	"github.com/loden-net/loden/backend/engine/wg/offload"
	"github.com/loden-net/loden/backend/engine/wg/peer"
)

// dropBed is a device with one peer, whose allowed IPs are 10.0.0.0/8, and what moves its packets.
type dropBed struct {
	t   *testing.T
	d   *Device
	far *Device // the other end
	k   *keeper
	s   *sender
	r   *receiver
}

// send lets the device send packets from the TUN device.
func (b *dropBed) send(packets ...[]byte) {
	for _, p := range packets {
		b.s.packet(p)
	}
	b.s.flush()
}

// receive lets the device receive a datagram.
func (b *dropBed) receive(msg []byte) {
	m := &b.r.in[0]
	m.From = netip.MustParseAddrPort("192.0.2.2:51820")
	m.Size, m.Segment = copy(m.Buf, msg), len(msg)
	b.r.n, b.r.now = 1, b.d.now()
	b.r.all()
}

// configure applies a "set" request.
func (b *dropBed) configure(text string) {
	b.t.Helper()
	if err := configure(b.d, text); err != nil {
		b.t.Fatal(err)
	}
}

// fromTUN is a packet of the bed's node to an address.
func (b *dropBed) fromTUN(to string) []byte {
	x, y := blank(b.t, "", 1), blank(b.t, "", 2)
	y.inner[0] = netip.MustParseAddr(to)
	return append(make([]byte, offload.HeaderSize), datagram(x, y, 0, []byte("hello"))...)
}

// downTUN is a TUN device of an interface that is down.
type downTUN struct{ memoryTUN }

func (*downTUN) Write([][]byte) error { return unix.EIO }

// fullSocket is a socket whose buffers had no room.
type fullSocket struct {
	keeper
	sendFull, receiveFull uint64
}

func (s *fullSocket) Drops() (sendFull, receiveFull uint64) { return s.sendFull, s.receiveFull }
func (s *fullSocket) Close() error                          { return nil }

// reopens lets a socket drop, closes it, and opens another that drops as much.
func (b *dropBed) reopens(s fullSocket) {
	b.d.sockets.Store(&bound{v4: &s})
	b.d.unbind() // the drops of closed sockets stay
	b.d.sockets.Store(&bound{v4: &s})
}

// dropCases are a way to bring about each reason, and the number of drops.
func dropCases() map[string]struct {
	drops uint64
	cause func(b *dropBed)
} {
	type c = struct {
		drops uint64
		cause func(b *dropBed)
	}
	return map[string]c{
		"malformed-packet":  {1, func(b *dropBed) { b.send(make([]byte, offload.HeaderSize-1)) }},
		"no-peer":           {1, func(b *dropBed) { b.send(b.fromTUN("11.0.0.1")) }},
		"too-big":           {1, func(b *dropBed) { p := superPacket(); p[4], p[5] = 0xff, 0x0f; b.send(p) }},
		"keypair-exhausted": {22, func(b *dropBed) { exhaust(onlyPeer(b.d).Current(), 5); b.send(superPacket()) }},
		"endpoint-in-tunnel": {1, func(b *dropBed) {
			b.d.boundPort.Store(8192) // the port that datagram sends from, less a byte
			b.d.carryOut(nil, peer.Actions{Datagrams: []peer.Datagram{{To: &peer.Endpoint{Loop: true}, Message: []byte{1}}}})
		}},
		"no-endpoint": {1, func(b *dropBed) {
			b.s.append(&newMember(b.d, noise.Key{9}).Peer, make([]byte, 64), 0)
		}},
		"no-socket": {1, func(b *dropBed) { b.d.sockets.Store(nil); b.send(b.fromTUN("10.0.0.2")) }},
		"staged-overflow": {8, func(b *dropBed) {
			b.withoutKeypair()
			for range 40 {
				b.send(b.fromTUN("10.0.0.2"))
			}
		}},
		"staged-expired": {3, func(b *dropBed) {
			b.withoutKeypair()
			b.send(b.fromTUN("10.0.0.2"), b.fromTUN("10.0.0.2"))
			p := onlyPeer(b.d)
			p.Remove()
			b.d.carryOut(p, p.Stage(b.fromTUN("10.0.0.2"), b.d.now())) // the packet was routed before
		}},
		"no-key": {1, func(b *dropBed) {
			b.configure("private_key=" + key(0) + "\n")
			b.send(b.fromTUN("10.0.0.2"))
		}},
		"not-wireguard":      {1, func(b *dropBed) { b.receive([]byte("a datagram of another program, long enough")) }},
		"handshake-rejected": {1, func(b *dropBed) { b.receive(forged()); b.d.read(<-b.d.handshakes) }},
		"handshake-queue-full": {1, func(b *dropBed) {
			for range handshakeQueueSize + 1 {
				b.receive(forged())
			}
		}},
		"not-decrypted": {2, func(b *dropBed) {
			altered := sealed(b.far, 1, []byte("hello"))
			altered[20]++
			b.receive(altered)
			unknown := sealed(b.far, 2, []byte("hello"))
			unknown[4]++
			b.receive(unknown)
		}},
		"replayed":     {1, func(b *dropBed) { m := sealed(b.far, 1, nil); b.receive(slices.Clone(m)); b.receive(m) }},
		"wrong-source": {1, func(b *dropBed) { b.receive(sealed(b.far, 1, []byte("hello"))) }},
		"send-refused": {1, func(b *dropBed) { b.k.refuses = true; b.send(b.fromTUN("10.0.0.2")) }},
		"interface-refused": {1, func(b *dropBed) {
			b.d.tunnel = &downTUN{}
			b.receive(sealed(b.far, 1, b.fromTUN("10.0.0.1")[offload.HeaderSize:]))
		}},
		"udp-send-queue-full":    {6, func(b *dropBed) { b.reopens(fullSocket{sendFull: 3}) }},
		"udp-receive-queue-full": {8, func(b *dropBed) { b.reopens(fullSocket{receiveFull: 4}) }},
	}
}

// withoutKeypair leaves the peer without a keypair, and the device with a private key.
func (b *dropBed) withoutKeypair() {
	b.configure("private_key=" + key(5) + "\nreplace_peers=true\npublic_key=" + validKey(b.t) + "\nendpoint=192.0.2.2:51820\nallowed_ip=10.0.0.0/8\n")
}

// validKey returns a public key in hexadecimal.
func validKey(t *testing.T) string { return blank(t, "", 2).public.Hex() }

// forged returns an initiation that is not authentic.
func forged() []byte {
	msg := make([]byte, noise.InitiationSize)
	msg[0] = noise.TypeInitiation
	return msg
}

// exhaust uses up the message counters of a keypair but a few.
func exhaust(k *peer.Keypair, rest int) {
	const counters = math.MaxUint64 - 1<<13 // section 6.1
	k.Reserve(math.MaxInt)
	from, _ := k.Reserve(1)
	k.Reserve(int(counters - from - 1 - uint64(rest)))
}

// TestEveryDropIsCountedOnceByItsReason brings about every reason that the status knows: no other
// reason may count, and no drop may count twice.
func TestEveryDropIsCountedOnceByItsReason(t *testing.T) {
	cases := dropCases()
	for reason := range idle().drops() {
		if _, ok := cases[reason]; !ok {
			t.Errorf("no case for %s", reason)
		}
	}
	for _, reason := range slices.Sorted(maps.Keys(cases)) {
		t.Run(reason, func(t *testing.T) {
			d, k, far := tunnelEnds(t)
			b := &dropBed{t: t, d: d, far: far, k: k, s: newSender(d), r: newReceiver(d)}
			cases[reason].cause(b)
			got := d.Status().Drops
			d.stopTimers()
			if got[reason] != cases[reason].drops || len(got) != 1 {
				t.Errorf("drops %v, want %s alone, %d times", got, reason, cases[reason].drops)
			}
		})
	}
}

func TestHandshakeThatTheKernelRefusesIsCounted(t *testing.T) {
	d, k, _ := tunnelEnds(t)
	k.refuses = true
	d.carryOut(nil, peer.Actions{Datagrams: []peer.Datagram{{To: &peer.Endpoint{Remote: netip.MustParseAddrPort("192.0.2.2:1")}, Message: forged()}}})
	if got := d.Status().Drops["send-refused"]; got != 1 {
		t.Errorf("%d drops, want 1", got)
	}
}
