package etcd

import (
	"testing"
	"time"
)

func TestPacerSlowsDownAFightAndForgetsIt(t *testing.T) {
	var p pacer
	now := time.Unix(0, 0)
	var waits []time.Duration
	for range paceFree + 7 {
		d := p.next("a", now)
		waits = append(waits, d)
		now = now.Add(d)
	}
	for i, d := range waits[:paceFree] {
		if d != 0 {
			t.Errorf("acquisition %d waits %v", i, d)
		}
	}
	for i, want := range []time.Duration{time.Second, 2 * time.Second, 4 * time.Second, 8 * time.Second, 16 * time.Second, paceMost} {
		if got := waits[paceFree+i]; got != want {
			t.Errorf("acquisition %d waits %v, want %v", paceFree+i, got, want)
		}
	}
	if d := p.next("b", now); d != 0 {
		t.Errorf("another node waits %v", d)
	}
	if d := p.next("a", now.Add(2*paceWindow)); d != 0 {
		t.Errorf("after quiet times it waits %v", d)
	}
}
