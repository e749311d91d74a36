package wg

import (
	"bytes"
	"fmt"
	"io"
	"net/netip"
	"strings"
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

// BenchmarkDescribe is the time of an answer to "get" with 10,000 peers.
func BenchmarkDescribe(b *testing.B) {
	d := idle()
	defer d.stopTimers()
	var all strings.Builder
	for i := range 10_000 {
		fmt.Fprintf(&all, "public_key=%064x\nendpoint=192.0.2.%d:%d\nallowed_ip=10.%d.%d.0/24\n", i+1, i%250, i+1, i>>8, i&255)
	}
	if err := configure(d, all.String()); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if err := d.Describe(io.Discard); err != nil {
			b.Fatal(err)
		}
	}
}
