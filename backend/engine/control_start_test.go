package engine_test

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/loden-net/loden/backend/engine"
)

// A control socket that cannot be opened must not keep packets from flowing, neither after a hand-over
// nor at a fresh start.
func TestEngineStartsWithoutItsControlSocketAndOpensItLater(t *testing.T) {
	o := options(t)
	inTheWay := filepath.Join(engine.ControlPath(o.RunDir, iface), "file")
	if err := os.MkdirAll(filepath.Dir(inTheWay), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(inTheWay, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	e := start(t, o)
	defer e.stop()
	if e.said != engine.ReadyLine {
		t.Fatalf("it said %q", e.said)
	}
	if err := os.RemoveAll(filepath.Dir(inTheWay)); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	for {
		err := engine.Stop(ctx, o.RunDir, iface)
		if err == nil {
			break
		}
		select {
		case <-ctx.Done():
			t.Fatalf("the control socket is not opened again: %v", err)
		case <-time.After(20 * time.Millisecond):
		}
	}
	if err := e.wait(); err != nil {
		t.Error(err)
	}
}
