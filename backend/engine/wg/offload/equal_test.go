package offload_test

import (
	"bytes"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/loden-net/loden/backend/engine/wg/offload"
)

// TestMergerJoinsOnlyAsItIsTold joins any traffic with each setting, and wants the same packets of
// each flow back, and no super-packet that the setting forbids.
func TestMergerJoinsOnlyAsItIsTold(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		packets := anyTraffic(t)
		m := &offload.Merger{
			KeepTCP: rapid.Bool().Draw(t, "keep TCP"), KeepUDP: rapid.Bool().Draw(t, "keep UDP"), EqualOnly: rapid.Bool().Draw(t, "equal only"),
		}
		written := merge(m, packets)
		for _, w := range written {
			h, pkt := offload.Decode(w), w[offload.HeaderSize:]
			if h.SegmentSize == 0 {
				continue
			}
			udp := h.ChecksumOffset == 6
			if udp && m.KeepUDP || !udp && m.KeepTCP {
				t.Fatalf("joined a protocol that is to be kept: %+v", h)
			}
			if short := (len(pkt)-int(h.HeaderLen))%int(h.SegmentSize) != 0; short && m.EqualOnly {
				t.Fatalf("a last segment is shorter: %+v, %d bytes", h, len(pkt))
			}
		}
		got, want := byFlow(cutAll(t, written)), byFlow(packets)
		for flow := range want {
			if !slices.EqualFunc(got[flow], want[flow], func(a, b string) bool { return bytes.Equal([]byte(a), []byte(b)) }) {
				t.Fatalf("flow %x:\ngot  %x\nwant %x", flow, got[flow], want[flow])
			}
		}
	})
}
