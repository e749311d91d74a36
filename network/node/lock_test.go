package node

import (
	"context"
	"errors"
	"strings"
	"testing"
)

func TestOneDaemonForEachRunDirectory(t *testing.T) {
	dir := t.TempDir()
	first, err := lockNode(dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := lockNode(dir); err == nil || !strings.Contains(err.Error(), "works on this node already (process ") {
		t.Errorf("a second one: %v", err)
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	again, err := lockNode(dir)
	if err != nil {
		t.Fatalf("after the first ended: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := awaitLock(ctx, dir); !errors.Is(err, context.Canceled) {
		t.Errorf("waiting for a lock that is held, until told to stop: %v", err)
	}
	_ = again.Close()
	if again, err = awaitLock(ctx, dir); err != nil {
		t.Errorf("waiting for a lock that is free: %v", err)
	}
	_ = again.Close()
}
