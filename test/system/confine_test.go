package system_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/loden-net/loden/backend/engine"
	"github.com/loden-net/loden/test/lab"
	"github.com/loden-net/loden/test/sandbox/sandboxtest"
)

// TestRunningEngineIsConfined looks at the processes of both kinds of engine from outside,
// and at their remaining rights: they hand over, and end in order.
func TestRunningEngineIsConfined(t *testing.T) {
	l := newLab(t, lab.Options{Nodes: 1})
	n := l.Nodes[0]
	for _, kind := range []engine.Kind{engine.WireGuardGo, engine.Loden} {
		t.Run(string(kind), func(t *testing.T) {
			for range 2 { // the second engine takes the place of the first
				cmd := n.Command(t.Context(), l.Program("loden"), "engine", "loden0", "--engine", string(kind))
				if err := cmd.Start(); err != nil {
					t.Fatal(err)
				}
				pid := cmd.Process.Pid
				t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
				sandboxtest.Until(t, standLimit, "the engine to take orders", func() error {
					if got := engine.PID(t.Context(), n.Path("/run/loden"), "loden0"); got != pid {
						return fmt.Errorf("%d does, not %d", got, pid)
					}
					return nil
				})
				confined(t, n, pid)
			}
			if err := engine.Stop(t.Context(), n.Path("/run/loden"), "loden0"); err != nil {
				t.Error(err)
			}
			if err := n.Run("ip", "link", "delete", "loden0"); err != nil {
				t.Error(err)
			}
		})
	}
}

// confined fails the test unless a process has exactly the rights that an engine needs.
func confined(t *testing.T, n *lab.Node, pid int) {
	t.Helper()
	status, err := n.Output("cat", fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	// CAP_NET_ADMIN is bit 12, CAP_NET_BIND_SERVICE bit 10: capabilities(7).
	for _, line := range []string{"CapEff:\t0000000000001400", "CapPrm:\t0000000000001400", "NoNewPrivs:\t1"} {
		if !strings.Contains(status, line+"\n") {
			t.Errorf("not %q in\n%s", line, status)
		}
	}
	// Its memory is closed even to its own user, unless that may trace everybody.
	const plain = "setpriv --bounding-set -sys_ptrace readlink /proc/%d/exe"
	if err := n.Run("sh", "-c", fmt.Sprintf(plain, pid)); err == nil {
		t.Error("another process of its user can look into it")
	}
	control := n.Command(t.Context(), "setpriv", "--bounding-set", "-sys_ptrace", "sleep", "1000")
	if err := control.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = control.Process.Kill(); _ = control.Wait() }()
	sandboxtest.Until(t, time.Minute, "a look into a process that is not confined", func() error {
		return n.Run("sh", "-c", fmt.Sprintf(plain, control.Process.Pid))
	})
}
