// Package sandboxtest runs a test binary inside a sandbox. It knows nothing of what is
// tested there.
package sandboxtest

import (
	"fmt"
	"os"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/loden-net/loden/test/sandbox"
)

// Main is the body of TestMain: it enters a sandbox, runs the tests there and fails when
// they leave a goroutine behind. It does not return.
func Main(m *testing.M, opts ...goleak.Option) {
	if err := sandbox.Enter(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	goleak.VerifyTestMain(m, opts...)
}

// Host makes a host that is removed at the end of the test.
func Host(t testing.TB, name string) *sandbox.Host {
	t.Helper()
	h, err := sandbox.NewHost(name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := h.Close(); err != nil {
			t.Error(err)
		}
	})
	return h
}

// Until waits for cond with a deadline and fails the test, saying what for, when it does
// not come true. cond is asked again after a short pause.
func Until(t testing.TB, limit time.Duration, what string, cond func() error) {
	t.Helper()
	var err error
	deadline := time.After(limit)
	for {
		if err = cond(); err == nil {
			return
		}
		select {
		case <-deadline:
			t.Fatalf("waited %v for %s: %v", limit, what, err)
		case <-time.After(10 * time.Millisecond):
		}
	}
}
