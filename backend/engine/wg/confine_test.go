package wg

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestConfinedProcessKeepsTwoCapabilities runs this test again as a process of its own,
// which confines itself.
func TestConfinedProcessKeepsTwoCapabilities(t *testing.T) {
	if os.Getenv("LODEN_TEST_CONFINE") != "" {
		confinedChild(t)
		return
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self, "-test.run=^"+t.Name()+"$", "-test.v")
	cmd.Env = append(os.Environ(), "LODEN_TEST_CONFINE=1")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if strings.Contains(string(out), ErrCgo.Error()) {
		t.Log("built with cgo, as the race detector wants it: Confine says so and does nothing")
	}
}

// confinedChild looks at every thread: a capability left on one is left.
func confinedChild(t *testing.T) {
	if err := Confine(); errors.Is(err, ErrCgo) {
		fmt.Println(err)
		return
	} else if err != nil {
		t.Fatal(err)
	}
	threads, err := filepath.Glob("/proc/self/task/*/status")
	if err != nil || len(threads) < 2 {
		t.Fatalf("%d threads, %v", len(threads), err)
	}
	for _, thread := range threads {
		status, err := os.ReadFile(thread)
		if err != nil {
			continue // ended meanwhile
		}
		for _, want := range []string{"CapPrm:\t0000000000001400", "CapEff:\t0000000000001400", "CapInh:\t0000000000000000", "NoNewPrivs:\t1"} {
			if !strings.Contains(string(status), want) {
				t.Errorf("%s: want %q in\n%s", thread, want, status)
			}
		}
	}
}
