package wg

import (
	"bytes"
	"net/netip"
	"testing"
)

// The data path without system calls: what is left beside the cipher.

func BenchmarkSendSuperPacket(b *testing.B) {
	d, _, _ := tunnelEnds(b)
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
	near, k, far := tunnelEnds(b)
	s := newSender(near)
	original := superPacket()
	s.packet(bytes.Clone(original))
	s.flush()
	r := newReceiver(far)
	sealed, m := bytes.Clone(k.last), &r.in[0]
	m.From = netip.MustParseAddrPort("192.0.2.2:51820")
	b.SetBytes(int64(len(sealed)))
	b.ReportAllocs()
	for b.Loop() {
		b.StopTimer()
		resume(b, far, 2, 1, false) // forgets the counters of the train
		b.StartTimer()
		r.now = far.now()
		m.Size, m.Segment = copy(m.Buf, sealed), k.size
		r.n = 1
		r.all()
	}
}
