package conn

import (
	"net/netip"
	"testing"
	"time"
)

func TestRefusedTrainsAreRememberedForTheirPathAndSizeAndForAWhile(t *testing.T) {
	var n narrowPaths
	now := time.Unix(1_700_000_000, 0)
	narrow, wide := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2")
	n.note(narrow, 1400, now)
	for _, c := range []struct {
		name    string
		to      netip.Addr
		segment int
		after   time.Duration
		want    bool
	}{
		{"the same again", narrow, 1400, time.Second, true},
		{"larger", narrow, 1450, time.Second, true},
		{"smaller", narrow, 1000, time.Second, false},
		{"another path", wide, 1400, time.Second, false},
		{"after a while", narrow, 1400, narrowFor, false},
	} {
		if got := n.refuses(c.to, c.segment, now.Add(c.after)); got != c.want {
			t.Errorf("%s: refuses %t, want %t", c.name, got, c.want)
		}
	}
	if n.some.Load() {
		t.Error("a path is looked up although none is narrow")
	}
	n.note(narrow, 1400, now)
	n.note(narrow, 1200, now)
	if !n.refuses(narrow, 1300, now) {
		t.Error("the smaller size was forgotten")
	}
	if n.forget(); n.some.Load() || n.refuses(narrow, 1400, now) {
		t.Error("a change of the routes changes nothing")
	}
}

func TestNarrowPathsAreBounded(t *testing.T) {
	var n narrowPaths
	for i := range 3 * narrowLimit {
		n.note(netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}), 1400, time.Unix(1, 0))
	}
	if len(n.paths) != narrowLimit || n.refusals.Load() != 3*narrowLimit {
		t.Errorf("%d paths kept, %d refusals counted", len(n.paths), n.refusals.Load())
	}
}
