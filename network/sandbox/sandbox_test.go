package sandbox_test

import (
	"os"
	"strings"
	"testing"

	"github.com/loden-net/loden/network/sandbox"
	"github.com/loden-net/loden/network/sandbox/sandboxtest"
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

func TestSandboxStartsWithLoopbackOnly(t *testing.T) {
	out, err := os.ReadFile("/proc/self/net/dev")
	if err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(string(out), ":"); n != 1 {
		t.Errorf("want lo alone, got:\n%s", out)
	}
}
