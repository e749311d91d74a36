package engine

import (
	"os"
	"testing"

	"golang.zx2c4.com/wireguard/tun"
	"golang.zx2c4.com/wireguard/tun/tuntest"
)

func TestSteadyTUNReportsNothingButChangedMTUs(t *testing.T) {
	file, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	inner := tuntest.NewChannelTUN() // reports that it is up at once
	s := &steadyTUN{Device: inner.TUN(), file: file, events: make(chan tun.Event, 1)}
	s.mtuChanged()
	s.mtuChanged() // nobody reads: must not block
	if e := <-s.Events(); e != tun.EventMTUUpdate {
		t.Errorf("event %v", e)
	}
	select {
	case e := <-s.Events():
		t.Errorf("one more event: %v", e)
	default:
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if err := s.Close(); err != nil {
		t.Errorf("closed twice: %v", err)
	}
	s.mtuChanged()
	if _, open := <-s.Events(); open {
		t.Error("the events are not closed")
	}
}
