package wg

import (
	"fmt"
	"strings"
	"testing"
)

// manyConfigured returns a device with so many peers, each with a prefix of its own.
func manyConfigured(t testing.TB, n int) *Device {
	t.Helper()
	d := idle()
	var text strings.Builder
	for i := range n {
		fmt.Fprintf(&text, "public_key=%s\nallowed_ip=10.%d.%d.0/24\n", key(i+1000), i>>8, i&255)
	}
	if err := configure(d, text.String()); err != nil {
		t.Fatal(err)
	}
	return d
}

// BenchmarkSetOfOnePeer changes the prefix of a peer beside 10,000 other peers: packets wait for that
// work on a single processor.
func BenchmarkSetOfOnePeer(b *testing.B) {
	d := manyConfigured(b, 10_000)
	for i := 0; b.Loop(); i++ {
		text := fmt.Sprintf("public_key=%s\nreplace_allowed_ips=true\nallowed_ip=10.250.%d.0/24\n", key(77+i%20), i%20)
		if err := configure(d, text); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportAllocs()
}

func BenchmarkDumpOfManyPeers(b *testing.B) {
	d := manyConfigured(b, 10_000)
	for b.Loop() {
		described(b, d)
	}
	b.ReportAllocs()
}
