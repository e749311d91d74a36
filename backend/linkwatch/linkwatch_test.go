package linkwatch_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"github.com/loden-net/loden/backend/linkwatch"
	"github.com/loden-net/loden/test/sandbox"
	"github.com/loden-net/loden/test/sandbox/sandboxtest"
)

func TestMain(m *testing.M) { sandboxtest.Main(m) }

// watched is a watch on link "x" of a host, and how often it called.
func watched(t *testing.T, h *sandbox.Host) (count func() int64, stop func() error) {
	t.Helper()
	var calls atomic.Int64
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() {
		ended <- h.Do(func() error { return linkwatch.Watch(ctx, "x", func() { calls.Add(1) }) })
	}()
	stop = func() error {
		cancel()
		select {
		case err := <-ended:
			return err
		case <-time.After(time.Minute):
			return errors.New("the watch does not end")
		}
	}
	return calls.Load, stop
}

func TestWatchCallsForItsInterfaceAndItsAddressesOnly(t *testing.T) {
	h := sandboxtest.Host(t, "watch")
	run := func(args ...string) {
		t.Helper()
		if err := h.Run("ip", args...); err != nil {
			t.Fatal(err)
		}
	}
	count, stop := watched(t, h)
	sandboxtest.Until(t, time.Minute, "the first call, for what was before", func() error {
		if count() == 0 {
			return errors.New("no call yet")
		}
		return nil
	})
	run("link", "add", "z", "type", "bridge") // somebody else's, and the fence below
	run("link", "add", "x", "type", "bridge")
	for _, change := range [][]string{
		{"link", "set", "x", "mtu", "1400"},
		{"link", "set", "x", "up"},
		{"addr", "add", "192.0.2.1/32", "dev", "x"},
		{"addr", "add", "2001:db8::1/128", "dev", "x"},
		{"addr", "flush", "dev", "x"},
		{"link", "set", "x", "down"},
		{"link", "set", "x", "name", "w"},
		{"link", "set", "w", "name", "x"},
		{"link", "delete", "x"},
	} {
		before := count()
		run(change...)
		sandboxtest.Until(t, time.Minute, "a call", func() error {
			if count() == before {
				return errors.New("none")
			}
			return nil
		})
	}
	run("link", "add", "x", "type", "bridge")
	quiet := settled(t, count)
	run("link", "set", "z", "mtu", "1400")
	run("addr", "add", "192.0.2.9/32", "dev", "z")
	run("link", "delete", "z")
	run("link", "set", "x", "mtu", "1300") // announced last: the fence
	sandboxtest.Until(t, time.Minute, "the fence", func() error {
		if count() == quiet {
			return errors.New("not yet")
		}
		return nil
	})
	if got := count() - quiet; got != 1 {
		t.Errorf("%d calls, want the fence alone", got)
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
}

// settled waits until the calls stop coming and returns their number.
func settled(t *testing.T, count func() int64) int64 {
	t.Helper()
	last, since := count(), time.Now()
	sandboxtest.Until(t, time.Minute, "quiet", func() error {
		if now := count(); now != last {
			last, since = now, time.Now()
		}
		if time.Since(since) < 300*time.Millisecond {
			return errors.New("still busy")
		}
		return nil
	})
	return last
}

func TestWatchEndsWithItsContext(t *testing.T) {
	h := sandboxtest.Host(t, "ends")
	_, stop := watched(t, h)
	if err := stop(); err != nil {
		t.Error(err)
	}
}
