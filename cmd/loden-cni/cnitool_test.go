package main_test

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestCnitoolAddsChecksAndDeletes(t *testing.T) {
	t.Parallel()
	n := newNode(t, families[0].env, conflist("1.1.0", ""))
	if err := os.WriteFile(n.Path("/etc/cni/net.d/10-loden.conflist"), []byte(conflist("1.1.0", "")), 0o644); err != nil {
		t.Fatal(err)
	}
	pod := n.pod(t, "a")
	tool := filepath.Join(os.Getenv(binEnv), "cnitool")
	run := func(verb string) (string, error) {
		cmd := n.Command(context.Background(), tool, verb, "lodentest", pod.NetNS)
		cmd.Env = append(os.Environ(), "CNI_PATH="+os.Getenv(binEnv), "NETCONFPATH=/etc/cni/net.d")
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	for _, verb := range []string{"add", "check", "del", "del", "gc"} {
		out, err := run(verb)
		if err != nil {
			t.Fatalf("cnitool %s: %v: %s", verb, err, out)
		}
		if verb == "add" && !strings.Contains(out, "fd44:0:0:3::2/64") {
			t.Errorf("cnitool add printed no IPv6 address: %s", out)
		}
	}
	n.clean(t)
	if out, err := run("check"); err == nil || !strings.Contains(out, "no interface eth0") {
		t.Errorf("cnitool check after del: %v: %s", err, out)
	}
	if out, err := run("status"); err == nil || !strings.Contains(out, "loden0") {
		t.Errorf("cnitool status without a daemon: %v: %s", err, out)
	}
}

// A plugin is started for every pod: what it links is what every pod waits for.
func TestPluginLinksNeitherEtcdNorWireGuard(t *testing.T) {
	out, err := exec.Command("go", "list", "-deps", ".").Output()
	if err != nil {
		t.Fatal(err)
	}
	deps := strings.Fields(string(out))
	if !slices.Contains(deps, "github.com/loden-net/loden/config") {
		t.Fatalf("config is not among %d packages: this test proves nothing", len(deps))
	}
	for _, dep := range deps {
		own := strings.HasPrefix(dep, "github.com/loden-net/loden/")
		switch {
		case own && !strings.HasPrefix(dep, "github.com/loden-net/loden/config") && dep != "github.com/loden-net/loden/cmd/loden-cni",
			strings.Contains(dep, "etcd"), strings.Contains(dep, "wireguard"), dep == "net/http":
			t.Errorf("loden-cni links %s", dep)
		}
	}
}
