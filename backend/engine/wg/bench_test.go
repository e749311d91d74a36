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
	if err := configure(d, somePeers(0, 10_000)); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if err := d.Describe(io.Discard); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkAddPeer is the time of a request that adds a peer beside 100 and beside 10,000 peers, and
// removes it again.
func BenchmarkAddPeer(b *testing.B) {
	for _, peers := range []int{100, 10_000} {
		b.Run(fmt.Sprintf("beside %d", peers), func(b *testing.B) {
			d := idle()
			defer d.stopTimers()
			if err := configure(d, somePeers(0, peers)); err != nil {
				b.Fatal(err)
			}
			add, remove := somePeers(peers, 1), fmt.Sprintf("public_key=%064x\nremove=true\n", peers+1)
			b.ReportAllocs()
			for b.Loop() {
				if err := configure(d, add); err != nil {
					b.Fatal(err)
				}
				if err := configure(d, remove); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// somePeers returns the lines for peers from first on, each with an endpoint and a subnet of each family.
func somePeers(first, count int) string {
	var all strings.Builder
	for i := first; i < first+count; i++ {
		fmt.Fprintf(&all, "public_key=%064x\nreplace_allowed_ips=true\nendpoint=198.18.%d.%d:51820\nallowed_ip=10.%d.%d.0/24\nallowed_ip=fd10:0:100:%x::/64\n",
			i+1, i>>8, i&255, i>>8, i&255, i)
	}
	return all.String()
}
