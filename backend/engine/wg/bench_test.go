package wg

import (
	"bytes"
	"net/netip"
	"testing"
)

// The data path without system calls: what is left beside the cipher.

func BenchmarkSendSuperPacket(b *testing.B) {
	d, _, _, _ := halfway(b)
	s := newSender(d)
	original := superPacket()
	packet := bytes.Clone(original)
	b.SetBytes(int64(len(original)))
	b.ReportAllocs()
	for b.Loop() {
		copy(packet, original[:100])
		s.packet(packet)
		s.flush()
	}
}

func BenchmarkReceiveTrain(b *testing.B) {
	d, k, _, theirs := halfway(b)
	s := newSender(d)
	original := superPacket()
	s.packet(bytes.Clone(original))
	s.flush()
	r := newReceiver(d)
	d.indices.m = map[uint32]indexed{7: {theirs.peer, theirs}}
	theirs.peer.current.Store(theirs)
	sealed, m := bytes.Clone(k.last), &r.in[0]
	m.From = netip.MustParseAddrPort("192.0.2.2:51820")
	b.SetBytes(int64(len(sealed)))
	b.ReportAllocs()
	for b.Loop() {
		r.now = d.now()
		m.Size, m.Segment = copy(m.Buf, sealed), k.size
		theirs.window = window{}
		r.n = 1
		r.all()
	}
}
