package main_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/containernetworking/cni/libcni"
	"github.com/containernetworking/cni/pkg/invoke"
	"github.com/containernetworking/cni/pkg/types"
	types100 "github.com/containernetworking/cni/pkg/types/100"
	"github.com/containernetworking/cni/pkg/version"

	"github.com/loden-net/loden/config"
	"github.com/loden-net/loden/config/opt"
	"github.com/loden-net/loden/test/sandbox"
	"github.com/loden-net/loden/test/sandbox/sandboxtest"
)

// binEnv names the directory of the plugins under test, built before the sandbox is
// entered: inside there is no network to fetch a module by.
const binEnv = "LODEN_TEST_CNI_BIN"

func TestMain(m *testing.M) {
	if os.Getenv(binEnv) == "" {
		dir, err := buildPlugins()
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		if err := os.Setenv(binEnv, dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
	sandboxtest.Main(m)
}

// buildPlugins builds loden-cni and the pinned reference plugins where Go finds them built
// the next time.
func buildPlugins() (string, error) {
	root, err := filepath.Abs("../..")
	if err != nil {
		return "", err
	}
	dir := filepath.Join(root, ".cache", "test", "cni")
	for _, build := range [][]string{
		{filepath.Join(root, "test/tools/cni/build.sh"), dir, "cnitool"},
		{"go", "build", "-o", dir + "/", "."},
	} {
		cmd := exec.Command(build[0], build[1:]...)
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			return "", fmt.Errorf("run %s: %w: %s", strings.Join(build, " "), err, out)
		}
	}
	return dir, nil
}

// families are the three kinds of cluster.
var families = []struct {
	name string
	env  config.Env
}{
	{"dual", config.Env{Networks: duo("10.244.0.0/16", "fd44::/48"), Subnets: duo("10.244.3.0/24", "fd44:0:0:3::/64"), MTU: 1420, Masq: true}},
	{"v4", config.Env{Networks: duo("10.244.0.0/16", ""), Subnets: duo("10.244.3.0/24", ""), MTU: 1420, Masq: true}},
	{"v6", config.Env{Networks: duo("", "fd44::/48"), Subnets: duo("", "fd44:0:0:3::/64"), MTU: 1420, Masq: true}},
}

// duo makes a Dual of two prefixes, "" being none.
func duo(v4, v6 string) opt.Dual[netip.Prefix] {
	var d opt.Dual[netip.Prefix]
	if v4 != "" {
		d.V4 = opt.Some(netip.MustParsePrefix(v4))
	}
	if v6 != "" {
		d.V6 = opt.Some(netip.MustParsePrefix(v6))
	}
	return d
}

// node is a host with a subnet.env, on which a runtime attaches pods.
type node struct {
	*sandbox.Host
	cni     *libcni.CNIConfig
	list    *libcni.NetworkConfigList
	scripts string // a second directory of plugins
}

// serial numbers hosts, so that no two tests share a name.
var serial atomic.Int64

// newNode makes a node with the given subnet.env and network.
func newNode(t testing.TB, env config.Env, conflist string) *node {
	t.Helper()
	h := sandboxtest.Host(t, fmt.Sprintf("node%d", serial.Add(1)))
	n := &node{Host: h, scripts: t.TempDir()}
	n.forget(t)
	n.write(t, env)
	n.use(t, conflist)
	for _, setting := range []string{"net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1"} {
		if err := h.Run("sysctl", "-qw", setting); err != nil {
			t.Fatal(err)
		}
	}
	return n
}

// write replaces the node's subnet.env.
func (n *node) write(t testing.TB, env config.Env) {
	t.Helper()
	if err := config.WriteFile(n.Path("/run/flannel/subnet.env"), env.Bytes(), 0o644, 0o755); err != nil {
		t.Fatal(err)
	}
}

// use makes conflist the node's network.
func (n *node) use(t testing.TB, conflist string) {
	t.Helper()
	list, err := libcni.ConfListFromBytes([]byte(conflist))
	if err != nil {
		t.Fatalf("%v in %s", err, conflist)
	}
	n.list = list
}

// forget empties the runtime's memory of its attachments: a new runtime has none.
func (n *node) forget(t testing.TB) {
	t.Helper()
	n.cni = libcni.NewCNIConfigWithCacheDir([]string{os.Getenv(binEnv), n.scripts}, t.TempDir(), onHost{n.Host})
}

// script makes a delegate that is a shell script; $BIN in it is where the plugins are.
func (n *node) script(t testing.TB, name, body string) {
	t.Helper()
	text := "#!/bin/sh\nBIN=" + os.Getenv(binEnv) + "\n" + body + "\n"
	if err := os.WriteFile(filepath.Join(n.scripts, name), []byte(text), 0o755); err != nil {
		t.Fatal(err)
	}
}

// pod makes an empty network namespace and says how the runtime would name it.
func (n *node) pod(t testing.TB, name string) *libcni.RuntimeConf {
	t.Helper()
	ns := n.Name + "-" + name
	if out, err := exec.Command("ip", "netns", "add", ns).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	t.Cleanup(func() {
		if out, err := exec.Command("ip", "netns", "del", ns).CombinedOutput(); err != nil {
			t.Errorf("%v: %s", err, out)
		}
	})
	return &libcni.RuntimeConf{ContainerID: name, NetNS: "/run/netns/" + ns, IfName: "eth0"}
}

// add attaches a pod and returns its addresses.
func (n *node) add(t testing.TB, pod *libcni.RuntimeConf) []netip.Prefix {
	t.Helper()
	result, err := n.cni.AddNetworkList(t.Context(), n.list, pod)
	if err != nil {
		t.Fatalf("add %s: %v", pod.ContainerID, err)
	}
	return addressesOf(t, result)
}

// addressesOf returns the addresses in a result of any version.
func addressesOf(t testing.TB, result types.Result) []netip.Prefix {
	t.Helper()
	current, err := types100.NewResultFromResult(result)
	if err != nil {
		t.Error(err)
		return nil
	}
	var addrs []netip.Prefix
	for _, ip := range current.IPs {
		addrs = append(addrs, netip.MustParsePrefix(ip.Address.String()))
	}
	return addrs
}

// del detaches a pod.
func (n *node) del(t testing.TB, pod *libcni.RuntimeConf) {
	t.Helper()
	if err := n.cni.DelNetworkList(t.Context(), n.list, pod); err != nil {
		t.Fatalf("delete %s: %v", pod.ContainerID, err)
	}
}

// reaches waits until the addresses answer a ping from the node, or from where prefix
// runs commands.
func (n *node) reaches(t testing.TB, addrs []netip.Prefix, prefix ...string) {
	t.Helper()
	for _, p := range addrs {
		sandboxtest.Until(t, 30*time.Second, "an answer to a ping", func() error {
			words := append(slices.Clone(prefix), "ping", "-c1", "-W1", p.Addr().String())
			return n.Run(words[0], words[1:]...)
		})
	}
}

// files lists the files that are left below a directory of the node, without the files that
// host-local keeps for ever.
func (n *node) files(t testing.TB, dir string) []string {
	t.Helper()
	var left []string
	err := filepath.WalkDir(n.Path(dir), func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() || d.Name() == "lock" || strings.HasPrefix(d.Name(), "last_reserved_ip") {
			return err
		}
		left = append(left, filepath.Base(path))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return left
}

// clean fails the test when anything of a pod is left on the node.
func (n *node) clean(t testing.TB) {
	t.Helper()
	if left := n.files(t, "/var/lib/cni"); len(left) > 0 {
		t.Errorf("left in /var/lib/cni: %v", left)
	}
	out, err := n.Output("ip", "-o", "link", "show", "type", "veth")
	if err != nil || out != "" {
		t.Errorf("left interfaces: %s %v", out, err)
	}
}

// conflist returns a list with this plugin alone and further members in its configuration; ""
// means the members of flannel's own conflist.
func conflist(version, more string) string {
	if more == "" {
		more = `,"delegate":{"hairpinMode":true,"isDefaultGateway":true}`
	}
	return fmt.Sprintf(`{"cniVersion":%q,"name":"lodentest","plugins":[{"type":"loden-cni"%s}]}`, version, more)
}

// onHost runs plugins on a host, as a runtime there would.
type onHost struct{ host *sandbox.Host }

// ExecPlugin is libcni's way to start a plugin.
func (o onHost) ExecPlugin(ctx context.Context, path string, stdin []byte, environ []string) ([]byte, error) {
	cmd := o.host.Command(ctx, path)
	cmd.Env = environ
	cmd.Stdin = bytes.NewReader(stdin)
	cmd.WaitDelay = time.Minute // a killed plugin's delegate holds the pipe until it ends
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		var said struct {
			Code         uint
			Msg, Details string
		}
		if jsonErr := json.Unmarshal(out, &said); jsonErr == nil && said.Msg != "" {
			return nil, &refusal{said.Code, said.Msg + "; " + said.Details}
		}
		return nil, fmt.Errorf("%w: %s%s", err, out, stderr.String())
	}
	return out, nil
}

// refusal is a plugin's own error.
type refusal struct {
	code uint
	text string
}

func (r *refusal) Error() string { return r.text }

// FindInPath is libcni's way to find a plugin.
func (o onHost) FindInPath(plugin string, paths []string) (string, error) {
	return invoke.FindInPath(plugin, paths)
}

// Decode is libcni's way to read an answer to VERSION.
func (o onHost) Decode(data []byte) (version.PluginInfo, error) {
	return (&version.PluginDecoder{}).Decode(data)
}
