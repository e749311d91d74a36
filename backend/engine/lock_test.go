package engine

import (
	"errors"
	"os"
	"sync"
	"testing"
)

func TestLockIsHeldByOneAtATime(t *testing.T) {
	dir := t.TempDir()
	first, err := takeLock(dir, Owner{Iface: "x", PID: 1, Kind: WireGuardGo})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := takeLock(dir, Owner{Iface: "x", PID: 2}); !errors.Is(err, ErrRunning) {
		t.Errorf("a second one got %v", err)
	}
	other, err := takeLock(dir, Owner{Iface: "y", PID: 3})
	if err != nil {
		t.Errorf("another interface: %v", err)
	}
	other.release()
	first.release()
	if _, running, err := Running(dir, "x"); running || err != nil {
		t.Errorf("released, running: %t %v", running, err)
	}
	again, err := takeLock(dir, Owner{Iface: "x", PID: 4, Kind: Loden})
	if err != nil {
		t.Fatal(err)
	}
	defer again.release()
	if o, running, err := Running(dir, "x"); !running || err != nil || o != (Owner{Iface: "x", PID: 4, Kind: Loden}) {
		t.Errorf("running: %+v %t %v", o, running, err)
	}
}

func TestAskingNeverKeepsAnEngineFromStarting(t *testing.T) {
	dir := t.TempDir()
	var askers sync.WaitGroup
	stop := make(chan struct{})
	for range 4 {
		askers.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
					if _, _, err := Running(dir, "x"); err != nil {
						t.Errorf("ask: %v", err)
						return
					}
				}
			}
		})
	}
	for i := range 500 {
		l, err := takeLock(dir, Owner{Iface: "x", PID: i})
		if err != nil {
			t.Errorf("round %d: %v", i, err)
			break
		}
		l.release()
	}
	close(stop)
	askers.Wait()
}

func FuzzLockFile(f *testing.F) {
	for _, seed := range []string{"", "{}", `{"interface":"x","pid":7,"engine":"loden"}`, "null", "[", `{"pid":"x"}`} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		dir := t.TempDir()
		if err := os.WriteFile(LockPath(dir, "x"), text, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, running, err := Running(dir, "x"); running || err != nil {
			t.Fatalf("a file that nobody locks: running %t, %v", running, err)
		}
		l, err := takeLock(dir, Owner{Iface: "x", PID: 9})
		if err != nil {
			t.Fatal(err)
		}
		defer l.release()
		if o, running, err := Running(dir, "x"); !running || err != nil || o.PID != 9 {
			t.Fatalf("got %+v %t %v", o, running, err)
		}
	})
}
