//go:build k8s

package k8s

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/loden-net/loden/test/sandbox"
	"github.com/loden-net/loden/test/sandbox/sandboxtest"
)

// ownDirs are a node's own, so that everything is at its standard path; /run is last, for
// all mounts come from below it.
var ownDirs = []string{"/var/lib", "/var/log", "/opt", "/etc/cni", "/run"}

// settings are what kubelet writes to the machine, which is not the test's alone. It finds
// them as it wants them, in files of the node's own.
var settings = map[string]string{
	"/proc/sys/kernel/panic": "10", "/proc/sys/kernel/panic_on_oops": "1", "/proc/sys/vm/overcommit_memory": "1",
	"/proc/sys/vm/panic_on_oom": "0", "/proc/sys/kernel/keys/root_maxkeys": "1000000", "/proc/sys/kernel/keys/root_maxbytes": "25000000",
}

// node is a machine with a kubelet.
type node struct {
	c       *cluster
	name    string
	address string // IPv4, of the underlay
	host    *sandbox.Host
	base    string   // backing of its own directories
	holder  *process // keeps its mount namespace
	proxy   *process // kube-proxy, once there
}

// newNode starts a node and waits until the API server knows it.
func (c *cluster) newNode(t *testing.T, name, number string) *node {
	t.Helper()
	n := &node{c: c, name: name, address: net4 + number, base: "/run/lk8s/" + name, host: c.machine(t, name, number)}
	t.Cleanup(func() {
		if err := errors.Join(n.host.Kill(), os.RemoveAll(n.base)); err != nil {
			t.Error(err)
		}
	})
	n.hold(t)
	n.containerd(t)
	n.kubelet(t, number)
	c.until(t, time.Minute, "node "+name, "get", "node", name)
	return n
}

// hold makes the node's mount namespace.
func (n *node) hold(t *testing.T) {
	t.Helper()
	var script strings.Builder
	script.WriteString("mount --make-rshared /\n") // kubelet's mounts are for containerd too
	own := func(path, from string) { fmt.Fprintf(&script, "mount --bind %s %s\n", from, path) }
	for path, value := range settings {
		file := n.base + "/settings" + path
		write(t, file, value+"\n")
		own(path, file)
	}
	for _, dir := range ownDirs {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.MkdirAll(n.base+dir, 0o755); err != nil {
			t.Fatal(err)
		}
		own(dir, n.base+dir)
	}
	script.WriteString("touch /run/held; exec sleep infinity")
	cmd := exec.Command("nsenter", "--net="+n.host.NetNS(), "unshare", "--mount", "sh", "-euc", script.String())
	n.holder = start(t, "the mounts of "+n.name, cmd, filepath.Join(n.c.dir, n.name+".log"))
	sandboxtest.Until(t, 10*time.Second, "mounts of "+n.name, func() error {
		_, err := os.Stat(n.base + "/run/held")
		return err
	})
}

// command returns a command that will run on the node.
func (n *node) command(name string, args ...string) *exec.Cmd {
	pid := strconv.Itoa(n.holder.cmd.Process.Pid)
	cmd := exec.CommandContext(context.Background(), "nsenter", append([]string{"--target", pid, "--mount", "--net", name}, args...)...)
	cmd.Env = append(os.Environ(), "PATH="+filepath.Dir(program("x"))+":"+os.Getenv("PATH"))
	return cmd
}

// output runs a short command on the node and returns its output.
func (n *node) output(name string, args ...string) (string, error) {
	out, err := n.command(name, args...).CombinedOutput()
	if err != nil {
		err = fmt.Errorf("run %s %s on %s: %w: %s", name, strings.Join(args, " "), n.name, err, out)
	}
	return string(out), err
}

// start starts a program on the node.
func (n *node) start(t *testing.T, name string, args ...string) *process {
	t.Helper()
	return start(t, name+" on "+n.name, n.command(program(name), args...), filepath.Join(n.c.dir, name+"-"+n.name+".log"))
}

// containerd starts the container runtime and gives it the images.
func (n *node) containerd(t *testing.T) {
	t.Helper()
	config := filepath.Join(n.c.dir, "containerd-"+n.name+".toml")
	// Without CAP_SYS_RESOURCE a container's OOM score cannot be lowered.
	write(t, config, `version = 3
[plugins."io.containerd.nri.v1.nri"]
  disable = true
[plugins."io.containerd.cri.v1.images".pinned_images]
  sandbox = "`+podImage+`"
[plugins."io.containerd.cri.v1.runtime"]
  restrict_oom_score_adj = true
  disable_apparmor = true
[plugins."io.containerd.cri.v1.runtime".cni]
  bin_dirs = ["/opt/cni/bin"]
  conf_dir = "/etc/cni/net.d"
`)
	p := n.start(t, "containerd", "-c", config)
	ctr := func(args ...string) error {
		_, err := n.output(program("ctr"), append([]string{"-n", "k8s.io"}, args...)...)
		return err
	}
	sandboxtest.Until(t, time.Minute, "containerd on "+n.name, func() error {
		if err := p.running(); err != nil {
			t.Fatal(err)
		}
		return ctr("version")
	})
	for _, words := range [][]string{
		{"image", "import", image("pod.tar")}, {"image", "import", image("loden.tar")}, {"image", "import", image("etcd.tar")},
		{"image", "tag", "localhost/loden:1", "localhost/loden:2"},
	} {
		if err := ctr(words...); err != nil {
			t.Fatal(err)
		}
	}
}

// kubelet starts it. It is not to measure disks: a node's are binds of one file system, among
// which it would find the wrong one and give up, once in a while. The pods' processes end before containerd does, and after kubelet,
// which would start them again.
func (n *node) kubelet(t *testing.T, number string) {
	t.Helper()
	keys, user := n.c.keys, "system:node:"+n.name
	keys.leaf(n.name, user, []string{"system:nodes"}, n.name, n.address, net6+number)
	makeCgroup(t, n.cgroup())
	t.Cleanup(func() { endCgroup(t, n.cgroup()) })
	config := filepath.Join(n.c.dir, "kubelet-"+n.name+".yaml")
	write(t, config, fmt.Sprintf(`apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
containerRuntimeEndpoint: unix:///run/containerd/containerd.sock
failCgroupV1: false
failSwapOn: false
cgroupDriver: cgroupfs
cgroupRoot: %s
oomScoreAdj: 0
resolvConf: ""
volumePluginDir: /var/lib/kubelet/plugins
localStorageCapacityIsolation: false
nodeLeaseDurationSeconds: 8
evictionHard: {memory.available: "0%%", nodefs.available: "0%%", nodefs.inodesFree: "0%%", imagefs.available: "0%%"}
imageGCHighThresholdPercent: 100
authentication: {anonymous: {enabled: false}, webhook: {enabled: true}, x509: {clientCAFile: %q}}
authorization: {mode: Webhook}
tlsCertFile: %q
tlsPrivateKeyFile: %q
`, n.cgroup(), keys.path("ca.crt"), keys.path(n.name+".crt"), keys.path(n.name+".key")))
	n.start(t, "kubelet", "--config="+config, "--kubeconfig="+keys.kubeconfig(n.name, server), "--hostname-override="+n.name,
		"--node-ip="+n.address+","+net6+number)
}

// serve starts kube-proxy in a mode, in place of the kube-proxy that runs.
func (n *node) serve(t *testing.T, mode string) {
	t.Helper()
	if n.proxy != nil {
		n.proxy.stop(t)
	}
	config := filepath.Join(n.c.dir, "proxy-"+n.name+".yaml")
	write(t, config, fmt.Sprintf(`apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
mode: %s
clientConnection: {kubeconfig: %q}
clusterCIDR: %s
hostnameOverride: %s
conntrack: {maxPerCore: 0, min: 0, tcpEstablishedTimeout: 0s, tcpCloseWaitTimeout: 0s}
`, mode, n.c.admin, overlays, n.name))
	n.proxy = n.start(t, "kube-proxy", "--config="+config)
}

// cgroup is the parent of the node's pods', below each hierarchy.
func (n *node) cgroup() string { return cgroups + n.name }

// write writes a file and makes its directory.
func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}
