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
	for version, verbs := range map[string][]string{
		"0.3.1": {"add", "del", "del"},
		"0.4.0": {"add", "check", "del", "del"},
		"1.0.0": {"add", "check", "del", "del"},
		"1.1.0": {"add", "check", "del", "del", "gc"},
	} {
		t.Run(version, func(t *testing.T) {
			t.Parallel()
			n := newNode(t, families[0].env, conflist(version, ""))
			pod := n.pod(t, "a")
			for _, verb := range verbs {
				out, err := n.cnitool(t, version, verb, pod.NetNS)
				if err != nil {
					t.Fatalf("cnitool %s: %v: %s", verb, err, out)
				}
				if verb == "add" && !strings.Contains(out, "fd44:0:0:3::2/64") {
					t.Errorf("cnitool add printed no IPv6 address: %s", out)
				}
			}
			n.clean(t)
		})
	}
}

func TestCnitoolShowsWhatIsWrong(t *testing.T) {
	t.Parallel()
	n := newNode(t, families[0].env, conflist("1.1.0", ""))
	pod := n.pod(t, "a")
	if out, err := n.cnitool(t, "1.1.0", "check", pod.NetNS); err == nil || !strings.Contains(out, "no interface eth0") {
		t.Errorf("cnitool check without add: %v: %s", err, out)
	}
	if out, err := n.cnitool(t, "1.1.0", "status", pod.NetNS); err == nil || !strings.Contains(out, "loden0") {
		t.Errorf("cnitool status without a daemon: %v: %s", err, out)
	}
}

// cnitool runs cnitool(1) on the node with a conflist of the given version.
func (n *node) cnitool(t *testing.T, version, verb, netns string) (string, error) {
	t.Helper()
	if err := os.WriteFile(n.Path("/etc/cni/net.d/10-loden.conflist"), []byte(conflist(version, "")), 0o644); err != nil {
		t.Fatal(err)
	}
	cmd := n.Command(context.Background(), filepath.Join(os.Getenv(binEnv), "cnitool"), verb, "lodentest", netns)
	cmd.Env = append(os.Environ(), "CNI_PATH="+os.Getenv(binEnv), "NETCONFPATH=/etc/cni/net.d")
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// The runtime starts the plugin for every pod, so each linked package delays every pod.
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
