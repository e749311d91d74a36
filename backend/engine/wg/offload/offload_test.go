package offload_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"testing"

	"golang.org/x/sys/unix"
	"pgregory.net/rapid"

	"github.com/loden-net/loden/backend/engine/wg/offload"
)

func TestSumIsTheSlowSum(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		b := rapid.SliceOfN(rapid.Byte(), 0, 300).Draw(t, "bytes")
		initial := rapid.Uint16().Draw(t, "initial")
		want := slowSum(append([]byte{byte(initial >> 8), byte(initial)}, b...))
		if got := offload.Sum(b, initial); uint32(got) != want {
			t.Fatalf("Sum(%x, %#x) = %#x, want %#x", b, initial, got, want)
		}
	})
}

// The header of an IPv4 packet with its known checksum.
func TestChecksumOfAnIPv4Header(t *testing.T) {
	header := []byte{0x45, 0, 0, 0x73, 0, 0, 0x40, 0, 0x40, 0x11, 0, 0, 0xc0, 0xa8, 0, 1, 0xc0, 0xa8, 0, 0xc7}
	if got := ^offload.Sum(header, 0); got != 0xb861 {
		t.Errorf("checksum %#x, want 0xb861", got)
	}
}

func TestHeaderSurvivesEncoding(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := offload.Header{
			NeedsChecksum: rapid.Bool().Draw(t, "csum"), Type: rapid.Byte().Draw(t, "type"),
			HeaderLen: rapid.Uint16().Draw(t, "hlen"), SegmentSize: rapid.Uint16().Draw(t, "size"),
			ChecksumStart: rapid.Uint16().Draw(t, "start"), ChecksumOffset: rapid.Uint16().Draw(t, "offset"),
		}
		var b [offload.HeaderSize]byte
		want.Encode(b[:])
		if got := offload.Decode(b[:]); got != want {
			t.Fatalf("got %+v, want %+v", got, want)
		}
	})
}

func TestSplitCutsAsTheModelDoes(t *testing.T) {
	var s offload.Split
	rapid.Check(t, func(t *rapid.T) {
		p := anyPacket(t)
		p.payload = anyPayload(t, 20000)
		p.flags |= rapid.SampledFrom([]uint8{0, 0x08, 0x01, 0x80, 0x89, 0x40}).Draw(t, "flags")
		if p.udp {
			p.flags = 0
		}
		size := rapid.IntRange(1, 9000).Draw(t, "segment")
		want := p.cut(size)
		if err := s.Reset(p.header(size), p.bytes(false)); err != nil {
			t.Fatal(err)
		}
		if s.Count() != len(want) {
			t.Fatalf("%d segments, want %d", s.Count(), len(want))
		}
		for i, w := range want {
			got, ok := s.Next()
			if !ok || !bytes.Equal(got, w.bytes(true)) {
				t.Fatalf("segment %d of %d (%v):\ngot  %x\nwant %x", i, len(want), ok, got, w.bytes(true))
			}
		}
		if _, ok := s.Next(); ok {
			t.Fatal("a segment after the last")
		}
	})
}

func TestPlainPacketGetsItsChecksum(t *testing.T) {
	var s offload.Split
	rapid.Check(t, func(t *rapid.T) {
		p := anyPacket(t)
		p.payload = anyPayload(t, 1400)
		h := p.header(0)
		h.Type = unix.VIRTIO_NET_HDR_GSO_NONE
		if err := s.Reset(h, p.bytes(false)); err != nil {
			t.Fatal(err)
		}
		if got, _ := s.Next(); !bytes.Equal(got, p.bytes(true)) {
			t.Fatalf("got  %x\nwant %x", got, p.bytes(true))
		}
	})
}

// TestChecksumInsideATunnelIsNeverZero completes all checksums of two bytes of payload behind
// headers that the package does not read, as the kernel leaves them to a TUN device: UDP inside
// VXLAN, GRE or IP in IP.
func TestChecksumInsideATunnelIsNeverZero(t *testing.T) {
	const start, field = 20 + 8 + 8 + 14 + 40, 6 // IPv4, UDP, VXLAN, Ethernet, IPv6: the inner UDP header
	for payload := range 1 << 16 {
		pkt := make([]byte, start+8+2)
		pkt[0], pkt[9] = 0x45, unix.IPPROTO_UDP
		binary.BigEndian.PutUint16(pkt[start+8:], uint16(payload))
		binary.BigEndian.PutUint16(pkt[start+field:], 0x1234) // the sum of the pseudo-header
		if err := offload.Complete(offload.Header{NeedsChecksum: true, ChecksumStart: start, ChecksumOffset: field}, pkt); err != nil {
			t.Fatal(err)
		}
		got := binary.BigEndian.Uint16(pkt[start+field:])
		binary.BigEndian.PutUint16(pkt[start+field:], 0x1234)
		want := ^uint16(slowSum(pkt[start:]))
		if want == 0 {
			want = 0xffff
		}
		if got != want {
			t.Fatalf("payload %04x: checksum %04x, want %04x", payload, got, want)
		}
	}
}

// merge runs packets through a Merger and returns the packets written, each in a single piece.
func merge(m *offload.Merger, packets [][]byte) (out [][]byte) {
	m.Write = func(pieces [][]byte) { out = append(out, bytes.Join(pieces, nil)) }
	for _, p := range packets {
		m.Add(bytes.Clone(p))
	}
	m.Flush()
	return out
}

// cutAll cuts the packets that a Merger wrote again.
func cutAll(t *rapid.T, written [][]byte) (out [][]byte) {
	for _, w := range written {
		var s offload.Split
		if err := s.Reset(offload.Decode(w), w[offload.HeaderSize:]); err != nil {
			t.Fatalf("cut %x: %v", w, err)
		}
		for seg, ok := s.Next(); ok; seg, ok = s.Next() {
			out = append(out, bytes.Clone(seg))
		}
	}
	return out
}

// flowOf sorts packets by addresses and ports; a packet without ports keeps its place among all.
func flowOf(p []byte) string {
	if p[0]>>4 == 6 {
		return string(p[8:44])
	}
	return string(p[12:24])
}

// byFlow groups packets in their order. The identification of IPv4 packets that must not
// be fragmented has no meaning (RFC 6864) and is blanked, with the checksum over it.
func byFlow(packets [][]byte) map[string][]string {
	flows := map[string][]string{}
	for _, p := range packets {
		p = bytes.Clone(p)
		if p[0]>>4 == 4 && p[6]&0x40 != 0 {
			clear(p[4:6])
			clear(p[10:12])
		}
		flows[flowOf(p)] = append(flows[flowOf(p)], string(p))
	}
	return flows
}

// anyTraffic draws streams of several flows, cut at some size, interleaved, with what gets
// in between: bare acknowledgments, odd flags, fragments, lost and repeated packets.
func anyTraffic(t *rapid.T) [][]byte {
	var streams [][][]byte
	for range rapid.IntRange(1, 4).Draw(t, "streams") {
		p := anyPacket(t)
		p.payload = anyPayload(t, 8000)
		p.flags |= rapid.SampledFrom([]uint8{0, 0, 0, 0x08, 0x01, 0x02, 0x40}).Draw(t, "flags")
		if p.udp {
			p.flags = 0
		}
		fixedID := p.dontFragment && rapid.Bool().Draw(t, "fixed id")
		var stream [][]byte
		for _, s := range p.cut(rapid.IntRange(100, 1400).Draw(t, "segment")) {
			if fixedID {
				s.id = p.id
			}
			b := s.bytes(true)
			switch rapid.IntRange(0, 30).Draw(t, "accident") {
			case 0:
				continue // lost
			case 1:
				stream = append(stream, b) // repeated
			case 2:
				s.payload, s.flags = nil, s.flags|0x10
				stream = append(stream, s.bytes(true)) // empty
			case 3:
				if !s.src.Is6() { // a fragment
					b[6] |= 0x20
					clear(b[10:12])
					binary.BigEndian.PutUint16(b[10:], ^uint16(slowSum(b[:20])))
				}
			}
			stream = append(stream, b)
		}
		streams = append(streams, stream)
	}
	var out [][]byte
	for len(streams) > 0 {
		i := rapid.IntRange(0, len(streams)-1).Draw(t, "turn")
		n := min(rapid.IntRange(1, 5).Draw(t, "run"), len(streams[i]))
		out = append(out, streams[i][:n]...)
		if streams[i] = streams[i][n:]; len(streams[i]) == 0 {
			streams = append(streams[:i], streams[i+1:]...)
		}
	}
	return out
}

func TestCuttingWhatWasMergedGivesTheSamePackets(t *testing.T) {
	var m offload.Merger
	rapid.Check(t, func(t *rapid.T) {
		in := anyTraffic(t)
		m.KeepUDP = rapid.Bool().Draw(t, "keep UDP")
		got, want := byFlow(cutAll(t, merge(&m, in))), byFlow(in)
		if len(got) != len(want) {
			t.Fatalf("%d flows became %d", len(want), len(got))
		}
		for flow, packets := range want {
			if len(got[flow]) != len(packets) {
				t.Fatalf("flow %x: %d packets became %d", flow, len(packets), len(got[flow]))
			}
			for i, p := range packets {
				if got[flow][i] != p {
					t.Fatalf("flow %x, packet %d:\ngot  %x\nwant %x", flow, i, got[flow][i], p)
				}
			}
		}
	})
}

func TestSplitRefusesContradictions(t *testing.T) {
	whole := packet{src: addr("10.0.0.1"), dst: addr("10.0.0.2"), flags: 0x10, payload: make([]byte, 3000)}
	for _, bad := range []struct {
		name   string
		change func(*offload.Header, []byte) []byte
	}{
		{"no segment size", func(h *offload.Header, b []byte) []byte { h.SegmentSize = 0; return b }},
		{"transport elsewhere", func(h *offload.Header, b []byte) []byte { h.ChecksumStart = 24; return b }},
		{"another protocol", func(_ *offload.Header, b []byte) []byte { b[9] = unix.IPPROTO_ICMP; return b }},
		{"another family", func(h *offload.Header, b []byte) []byte { h.Type = unix.VIRTIO_NET_HDR_GSO_TCPV6; return b }},
		{"unknown type", func(h *offload.Header, b []byte) []byte { h.Type = 9; return b }},
		{"headers cut off", func(_ *offload.Header, b []byte) []byte { return b[:30] }},
		{"TCP header too short", func(_ *offload.Header, b []byte) []byte { b[32] = 4 << 4; return b }},
		{"TCP header too long", func(_ *offload.Header, b []byte) []byte { b[32] = 15 << 4; return b[:60] }},
	} {
		t.Run(bad.name, func(t *testing.T) {
			h := whole.header(1000)
			pkt := bad.change(&h, whole.bytes(false))
			var s offload.Split
			if err := s.Reset(h, pkt); !errors.Is(err, offload.ErrMalformed) {
				t.Errorf("got %v", err)
			}
		})
	}
}
