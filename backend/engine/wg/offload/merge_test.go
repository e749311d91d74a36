package offload_test

import (
	"testing"

	"github.com/loden-net/loden/backend/engine/wg/offload"
)

// stream returns the wire packets of a TCP stream.
func stream(port uint16, bytes, size int) (out [][]byte) {
	p := packet{src: addr("10.0.0.1"), dst: addr("10.0.0.2"), ttl: 64, sport: port, dport: 80,
		dontFragment: true, flags: 0x18, window: 500, payload: make([]byte, bytes)}
	for _, s := range p.cut(size) {
		out = append(out, s.bytes(true))
	}
	return out
}

func TestInterleavedStreamsBecomeOneSuperPacketEach(t *testing.T) {
	var in [][]byte
	a, b, c := stream(1, 30*1368, 1368), stream(2, 30*1368, 1368), stream(3, 30*1368, 1368)
	for i := range a {
		in = append(in, a[i], b[i], c[i])
	}
	var m offload.Merger
	if got := merge(&m, in); len(got) != 3 {
		t.Errorf("%d packets of 3 streams became %d, want 3", len(in), len(got))
	}
}

func TestMergingAllocatesNothing(t *testing.T) {
	in := stream(1, 40*1368, 1368)
	scratch := stream(1, 40*1368, 1368) // merging writes into headers
	m := offload.Merger{Write: func([][]byte) {}}
	got := testing.AllocsPerRun(100, func() {
		for i, p := range in {
			copy(scratch[i], p)
			m.Add(scratch[i])
		}
		m.Flush()
	})
	if got != 0 {
		t.Errorf("%v allocations per batch", got)
	}
}

func TestNeighboursThatDifferStayApart(t *testing.T) {
	base := packet{src: addr("10.0.0.1"), dst: addr("10.0.0.2"), ttl: 64, sport: 1, dport: 80, dontFragment: true,
		flags: 0x10, window: 500, options: []byte{1, 1, 1, 0}, payload: make([]byte, 2000)}
	for _, pair := range []struct {
		name   string
		change func(first, second *packet)
	}{
		{"ECN echo", func(_, b *packet) { b.flags |= 0x40 }},
		{"window", func(_, b *packet) { b.window++ }},
		{"acknowledgment", func(_, b *packet) { b.ack++ }},
		{"options", func(_, b *packet) { b.options = []byte{1, 1, 0, 0} }},
		{"congestion mark", func(_, b *packet) { b.tos = 3 }},
		{"time to live", func(_, b *packet) { b.ttl-- }},
		{"push in the first", func(a, _ *packet) { a.flags |= 8 }},
		{"gap", func(_, b *packet) { b.seq++ }},
		{"identification without DF", func(a, b *packet) { a.dontFragment, b.dontFragment, b.id = false, false, a.id }},
	} {
		t.Run(pair.name, func(t *testing.T) {
			two := base.cut(1000)
			pair.change(&two[0], &two[1])
			if got := merge(&offload.Merger{}, [][]byte{two[0].bytes(true), two[1].bytes(true)}); len(got) != 2 {
				t.Errorf("joined to %d", len(got))
			}
		})
	}
	t.Run("nothing", func(t *testing.T) {
		two := base.cut(1000)
		if got := merge(&offload.Merger{}, [][]byte{two[0].bytes(true), two[1].bytes(true)}); len(got) != 1 {
			t.Errorf("left as %d", len(got))
		}
	})
	t.Run("fragments", func(t *testing.T) {
		var in [][]byte
		for _, p := range base.cut(1000) {
			b := p.bytes(true)
			b[6] |= 0x20
			in = append(in, b)
		}
		if got := merge(&offload.Merger{}, in); len(got) != 2 {
			t.Errorf("joined to %d", len(got))
		}
	})
}

func TestAcknowledgmentsDoNotBreakOtherStreams(t *testing.T) {
	ack := packet{src: addr("10.0.0.9"), dst: addr("10.0.0.8"), flags: 0x10, sport: 9, dport: 9, dontFragment: true}
	var in [][]byte
	for _, p := range stream(1, 10*1368, 1368) {
		in = append(in, p, ack.bytes(true))
	}
	if got := merge(&offload.Merger{}, in); len(got) != 11 {
		t.Errorf("10 segments and 10 acknowledgments became %d packets, want 11", len(got))
	}
}
