package probe

import (
	"bytes"
	"testing"
	"time"

	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"
	"pgregory.net/rapid"
)

func pair(t testing.TB) (ab, ba seals) {
	t.Helper()
	shared := [32]byte{1, 2, 3}
	a, b := wgtypes.Key{1}, wgtypes.Key{2}
	ab, err := newSeals(shared, a, b)
	if err != nil {
		t.Fatal(err)
	}
	if ba, err = newSeals(shared, b, a); err != nil {
		t.Fatal(err)
	}
	return ab, ba
}

func TestSealedMessageOpensAtItsReceiverOnlyAndUnchangedOnly(t *testing.T) {
	ab, ba := pair(t)
	rapid.Check(t, func(t *rapid.T) {
		text := rapid.SliceOf(rapid.Byte()).Draw(t, "message")
		datagram, id := ab.seal(text)
		got, gotID, err := ba.open(datagram)
		if err != nil || !bytes.Equal(got, text) || gotID != id {
			t.Fatalf("%q, id %d, %v; want %q, %d", got, gotID, err, text, id)
		}
		if _, _, err := ab.open(datagram); err == nil {
			t.Fatal("a datagram that was sent back opens at its sender")
		}
		at, bit := rapid.IntRange(0, len(datagram)-1).Draw(t, "at"), rapid.IntRange(0, 7).Draw(t, "bit")
		datagram[at] ^= 1 << bit
		if _, _, err := ba.open(datagram); err == nil {
			t.Fatalf("it opens with bit %d of byte %d changed", bit, at)
		}
	})
}

func TestMessageComesBackFromItsBytesAndFillsTheSize(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		age := rapid.OneOf(rapid.Just(never), rapid.Map(rapid.IntRange(0, 1<<31), func(ms int) time.Duration { return time.Duration(ms) * time.Millisecond }))
		m := message{
			kind: kind(rapid.IntRange(1, int(unknownKind)-1).Draw(t, "kind")), short: rapid.Bool().Draw(t, "short"),
			arrived: rapid.IntRange(0, 65535).Draw(t, "arrived"), re: rapid.Uint64().Draw(t, "re"),
			sent: time.Unix(0, rapid.Int64().Draw(t, "sent")), heard: age.Draw(t, "heard"), answered: age.Draw(t, "answered"),
		}
		size := rapid.IntRange(0, 1500).Draw(t, "size")
		out := m.encode(size)
		got, err := decode(out)
		if err != nil || len(out) != max(size, headSize) || !bytes.Equal(got.body, make([]byte, len(out)-headSize)) {
			t.Fatalf("%d bytes of %d: %+v, %v", len(out), size, got, err)
		}
		if got.body = nil; got.kind != m.kind || got.short != m.short || got.arrived != m.arrived || got.re != m.re ||
			!got.sent.Equal(m.sent) || got.heard != m.heard || got.answered != m.answered {
			t.Fatalf("got %+v, want %+v", got, m)
		}
	})
}

// FuzzDatagram takes arbitrary bytes from the address of a peer, and arbitrary messages that
// are sealed by a peer.
func FuzzDatagram(f *testing.F) {
	ab, ba := pair(f)
	sealed, _ := ab.seal(message{kind: fetch, body: request{size: 100, question: "report"}.encode()}.encode(300))
	for _, seed := range [][]byte{nil, []byte(magic), sealed, message{kind: ask}.encode(0), message{kind: fetch, body: request{size: 100}.encode()}.encode(0), message{kind: piece, body: portion{total: 9}.encode()}.encode(64)} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if content, _, err := ba.open(data); err == nil {
			t.Logf("opened %d bytes", len(content))
		}
		idOf(data)
		m, err := decode(data)
		if err != nil {
			return
		}
		if again, err := decode(m.encode(0)); err != nil || again.kind != m.kind || !bytes.Equal(again.body, m.body) {
			t.Fatalf("%+v, %v: want %+v", again, err, m)
		}
		if r, err := decodeRequest(m.body); err == nil && portionSize+r.size > len(m.body) {
			t.Fatalf("a request of %d bytes may be answered with %d", len(m.body), portionSize+r.size)
		}
		_, _ = decodePortion(m.body)
		_, _ = unpack(m.body)
	})
}
