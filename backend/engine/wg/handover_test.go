package wg

import (
	"slices"
	"testing"
)

func TestMessageOvertakenBeforeAHandOverArrivesBehindIt(t *testing.T) {
	d, _, _ := tunnelEnds(t)
	k := onlyPeer(d).Current()
	for _, counter := range []uint64{0, 1, 2, 4} {
		if !k.Accept(counter) {
			t.Fatalf("counter %d refused", counter)
		}
	}
	next := idle()
	if err := next.restore(d.export()); err != nil {
		t.Fatal(err)
	}
	var got []uint64
	for counter := range uint64(6) {
		if next.local.Keypair(k.LocalIndex()).Accept(counter) {
			got = append(got, counter)
		}
	}
	if !slices.Equal(got, []uint64{3, 5}) {
		t.Errorf("counters %d taken, want 3 and 5", got)
	}
}
