package main

import (
	"context"
	"net"
	"testing"
	"time"
)

func TestStreamCountsWhatTheEchoSwallows(t *testing.T) {
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- Echo(&every{PacketConn: conn, nth: 5}) }()
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	flow, err := Stream(ctx, conn.LocalAddr().String(), 200)
	if err != nil {
		t.Fatal(err)
	}
	if flow.Sent < 50 || flow.Lost != flow.Sent/5 {
		t.Errorf("%+v, want every fifth lost", flow)
	}
	if flow.Pause <= 0 || flow.Pause > time.Second {
		t.Errorf("longest pause %v, want that of one lost packet", flow.Pause)
	}
	if err := conn.Close(); err != nil {
		t.Error(err)
	}
	<-ended
}

// every drops each nth packet that is to be sent.
type every struct {
	net.PacketConn
	nth, sent int
}

func (e *every) WriteTo(b []byte, to net.Addr) (int, error) {
	if e.sent++; e.sent%e.nth == 0 {
		return len(b), nil
	}
	return e.PacketConn.WriteTo(b, to)
}
