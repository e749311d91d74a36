package backend

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"
)

func TestWatchEngineCallsAtTheEndOfEachConnection(t *testing.T) {
	path := filepath.Join(t.TempDir(), "sock")
	ctx, cancel := context.WithCancel(t.Context())
	calls, ended := make(chan struct{}, 8), make(chan struct{})
	go func() {
		defer close(ended)
		watchEngine(ctx, dialPath(path), func() { calls <- struct{}{} })
	}()
	for range 2 { // an engine, and its successor
		_ = os.Remove(path)
		listener, err := net.Listen("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		c, err := listener.Accept()
		if err != nil {
			t.Fatal(err)
		}
		select {
		case <-calls:
			t.Fatal("a call while the engine lives")
		default:
		}
		_ = listener.Close()
		_ = c.Close()
		select {
		case <-calls:
		case <-time.After(time.Minute):
			t.Fatal("no call at the end of the engine")
		}
	}
	cancel()
	select {
	case <-ended:
	case <-time.After(time.Minute):
		t.Fatal("it does not end with its context")
	}
}

func dialPath(path string) func(context.Context) (net.Conn, error) {
	return func(ctx context.Context) (net.Conn, error) { return new(net.Dialer).DialContext(ctx, "unix", path) }
}
