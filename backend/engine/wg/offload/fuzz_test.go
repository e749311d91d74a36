package offload_test

import (
	"net/netip"
	"testing"

	"github.com/loden-net/loden/backend/engine/wg/offload"
)

func addr(s string) netip.Addr { return netip.MustParseAddr(s) }

func FuzzSplit(f *testing.F) {
	p := packet{src: addr("10.0.0.1"), dst: addr("10.0.0.2"), flags: 0x10, payload: make([]byte, 3000)}
	for _, udp := range []bool{false, true} {
		p.udp = udp
		b := make([]byte, offload.HeaderSize)
		p.header(1000).Encode(b)
		f.Add(append(b, p.bytes(false)...))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) < offload.HeaderSize {
			return
		}
		var s offload.Split
		if s.Reset(offload.Decode(b), b[offload.HeaderSize:]) != nil {
			return
		}
		n := 0
		for _, ok := s.Next(); ok; _, ok = s.Next() {
			n++
		}
		if n != s.Count() {
			t.Errorf("%d segments, promised %d", n, s.Count())
		}
	})
}

func FuzzMerge(f *testing.F) {
	two := stream(1, 200, 100)
	f.Add(two[0], two[1], two[0])
	f.Fuzz(func(t *testing.T, a, b, c []byte) {
		var m offload.Merger
		if got := merge(&m, [][]byte{a, b, c}); len(got) == 0 || len(got) > 3 {
			t.Errorf("3 packets became %d", len(got))
		}
	})
}
