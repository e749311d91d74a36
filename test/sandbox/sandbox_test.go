package sandbox_test

import (
	"os"
	"strings"
	"testing"

	"github.com/loden-net/loden/test/sandbox"
	"github.com/loden-net/loden/test/sandbox/sandboxtest"
)

func TestMain(m *testing.M) { sandboxtest.Main(m) }

func TestTwoHostsReachEachOtherOverAWire(t *testing.T) {
	a, b := sandboxtest.Host(t, "a"), sandboxtest.Host(t, "b")
	if err := sandbox.Wire(a, "eth0", b, "eth0"); err != nil {
		t.Fatal(err)
	}
	for _, step := range []struct {
		host *sandbox.Host
		cmd  string
	}{
		{a, "ip addr add 192.0.2.1/24 dev eth0"}, {b, "ip addr add 192.0.2.2/24 dev eth0"},
		{a, "ip addr add 2001:db8::1/64 dev eth0 nodad"}, {b, "ip addr add 2001:db8::2/64 dev eth0 nodad"},
		{a, "ping -c1 -W5 192.0.2.2"}, {a, "ping -c1 -W5 2001:db8::2"},
	} {
		words := strings.Fields(step.cmd)
		if err := step.host.Run(words[0], words[1:]...); err != nil {
			t.Fatal(err)
		}
	}
}

func TestHostsHaveDirectoriesOfTheirOwn(t *testing.T) {
	a, b := sandboxtest.Host(t, "a"), sandboxtest.Host(t, "b")
	if err := a.Run("sh", "-c", "echo mine > /run/wireguard/x"); err != nil {
		t.Fatal(err)
	}
	if err := b.Run("test", "!", "-e", "/run/wireguard/x"); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(a.Path("/run/wireguard/x"))
	if err != nil || string(got) != "mine\n" {
		t.Fatalf("file of host a seen from the machine: %q, %v", got, err)
	}
}

func TestHostOfTheSameNameStartsAsNew(t *testing.T) {
	for range 2 {
		h, err := sandbox.NewHost("twice")
		if err != nil {
			t.Fatal(err)
		}
		if err := h.Run("sh", "-ec", "! test -e /var/lib/loden/x; echo mine >/var/lib/loden/x"); err != nil {
			t.Error(err)
		}
		if err := h.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestKillEndsProcessesOfHostOnly(t *testing.T) {
	a, b := sandboxtest.Host(t, "a"), sandboxtest.Host(t, "b")
	for _, h := range []*sandbox.Host{a, b} {
		if err := h.Run("sh", "-c", "sleep 600 >/dev/null 2>&1 & sleep 600 >/dev/null 2>&1 &"); err != nil {
			t.Fatal(err)
		}
	}
	if err := a.Kill(); err != nil {
		t.Fatal(err)
	}
	if pids, err := a.PIDs(); err != nil || len(pids) != 0 {
		t.Errorf("left on a: %v, %v", pids, err)
	}
	if pids, err := b.PIDs(); err != nil || len(pids) != 2 {
		t.Errorf("on b: %v, %v, want two", pids, err)
	}
	if err := b.Kill(); err != nil {
		t.Error(err)
	}
}

func TestSandboxStartsWithLoopbackOnly(t *testing.T) {
	out, err := os.ReadFile("/proc/self/net/dev")
	if err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(string(out), ":"); n != 1 {
		t.Errorf("want lo alone, got:\n%s", out)
	}
}
