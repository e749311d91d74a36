//go:build k8s

package k8s

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/loden-net/loden/test/sandbox"
	"github.com/loden-net/loden/test/sandbox/sandboxtest"
)

// The addresses of the machines end in 10 for the control plane, 11 and 12 for the nodes.
const (
	net4      = "10.80.0."
	net6      = "fd80::"
	server    = "https://" + net4 + "10:6443"
	services  = "10.96.0.0/16,fd96::/112"
	service   = "10.96.0.1" // the API server's own
	overlays  = "10.244.0.0/16,fd44::/48"
	stoppedIn = "20s" // without a sign of life for so long a node is NotReady
)

// cluster is Kubernetes on machines of the sandbox:
//
//	control: etcd, API server, controllers, scheduler ──┐
//	n1: kubelet, containerd, kube-proxy ────────────────┤ switch
//	n2: the same ───────────────────────────────────────┘
type cluster struct {
	dir    string // logs and settings
	cable  *sandbox.Switch
	host   *sandbox.Host // the control plane's
	keys   *authority
	admin  string // kubeconfig
	nodes  []*node
	etcd   *process
	server *process
}

// newCluster starts the control plane and two nodes, which have no pod network.
func newCluster(t *testing.T) *cluster {
	t.Helper()
	c := &cluster{dir: t.TempDir()}
	removeCgroups(t) // of a run that was killed
	t.Cleanup(func() { removeCgroups(t) })
	var err error
	if c.cable, err = sandbox.NewSwitch("cable"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.cable.Close(); err != nil {
			t.Error(err)
		}
	})
	c.host = c.machine(t, "control", "10")
	c.credentials(t)
	c.control(t)
	for i, name := range []string{"n1", "n2"} {
		c.nodes = append(c.nodes, c.newNode(t, name, fmt.Sprint(11+i)))
	}
	return c
}

// machine makes a host with a cable and both addresses. The control plane is everybody's
// way out.
func (c *cluster) machine(t *testing.T, name, number string) *sandbox.Host {
	t.Helper()
	h := sandboxtest.Host(t, name)
	if err := c.cable.Plug(h, "eth0"); err != nil {
		t.Fatal(err)
	}
	script := `ip addr add "$1/24" dev eth0; ip addr add "$2/64" dev eth0 nodad
sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1
[ "$1" = "$3" ] || { ip route add default via "$3"; ip -6 route add default via "$4"; }`
	if err := h.Run("sh", "-euc", script, "sh", net4+number, net6+number, net4+"10", net6+"10"); err != nil {
		t.Fatal(err)
	}
	return h
}

func (c *cluster) credentials(t *testing.T) {
	t.Helper()
	dir := filepath.Join(c.dir, "keys")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	c.keys = newAuthority(t, dir)
	c.keys.leaf("server", "kube-apiserver", nil, net4+"10", net6+"10", service, "127.0.0.1", "localhost")
	c.keys.leaf("server-client", "server-client", []string{"system:masters"})
	c.keys.leaf("admin", "admin", []string{"system:masters"})
	c.admin = c.keys.kubeconfig("admin", server)
}

// control starts the control plane and waits until it answers.
func (c *cluster) control(t *testing.T) {
	t.Helper()
	on := func(name string, args ...string) *process {
		cmd := c.host.Command(context.Background(), program(name), args...)
		return start(t, name, cmd, filepath.Join(c.dir, name+".log"))
	}
	c.etcd = on("etcd", "--data-dir="+c.dir+"/etcd", "--unsafe-no-fsync",
		"--listen-client-urls=http://127.0.0.1:2379,http://"+net4+"10:2379", "--advertise-client-urls=http://"+net4+"10:2379",
		"--listen-peer-urls=http://127.0.0.1:2380")
	key := c.keys.path
	c.server = on("kube-apiserver", "--etcd-servers=http://127.0.0.1:2379", "--endpoint-reconciler-type=none",
		"--bind-address=::", "--advertise-address="+net4+"10", "--secure-port=6443", "--service-cluster-ip-range="+services,
		"--tls-cert-file="+key("server.crt"), "--tls-private-key-file="+key("server.key"), "--client-ca-file="+key("ca.crt"),
		"--service-account-key-file="+key("sa.key"), "--service-account-signing-key-file="+key("sa.key"),
		"--service-account-issuer=https://kubernetes.default.svc", "--authorization-mode=Node,RBAC",
		"--kubelet-preferred-address-types=InternalIP", // nobody resolves the nodes' names
		"--kubelet-client-certificate="+key("server-client.crt"), "--kubelet-client-key="+key("server-client.key"),
		"--cert-dir="+c.dir+"/server", "--shutdown-delay-duration=0s")
	c.until(t, 2*time.Minute, "the API server", "get", "--raw", "/readyz")
	on("kube-controller-manager", "--kubeconfig="+c.admin, "--leader-elect=false", "--cert-dir="+c.dir+"/controllers",
		"--service-account-private-key-file="+key("sa.key"), "--root-ca-file="+key("ca.crt"),
		"--node-monitor-grace-period="+stoppedIn, "--node-monitor-period=2s")
	on("kube-scheduler", "--kubeconfig="+c.admin, "--leader-elect=false", "--cert-dir="+c.dir+"/scheduler")
}

// command returns a call of kubectl.
func (c *cluster) command(args ...string) *exec.Cmd {
	args = append([]string{"--kubeconfig", c.admin, "--cache-dir", c.dir + "/kubectl"}, args...)
	return c.host.Command(context.Background(), program("kubectl"), args...)
}

// ask calls kubectl and returns its output, or its error message.
func (c *cluster) ask(args ...string) (string, error) {
	var said strings.Builder
	cmd := c.command(args...)
	cmd.Stderr = &said
	out, err := cmd.Output()
	if err != nil {
		err = fmt.Errorf("kubectl %s: %w: %s", strings.Join(args, " "), err, said.String()+string(out))
	}
	return string(out), err
}

// kubectl calls kubectl and fails the test on an error.
func (c *cluster) kubectl(t *testing.T, args ...string) string {
	t.Helper()
	out, err := c.ask(args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// until calls kubectl until it has no error.
func (c *cluster) until(t *testing.T, limit time.Duration, what string, args ...string) {
	t.Helper()
	sandboxtest.Until(t, limit, what, func() error {
		if err := c.server.running(); err != nil {
			t.Fatal(err)
		}
		_, err := c.ask(args...)
		return err
	})
}

// read decodes an object of the cluster.
func (c *cluster) read(t *testing.T, into any, args ...string) {
	t.Helper()
	out := c.kubectl(t, append(args, "-o", "json")...)
	if err := json.NewDecoder(strings.NewReader(out)).Decode(into); err != nil && err != io.EOF {
		t.Fatalf("kubectl %v: %v in %s", args, err, out)
	}
}

// show logs the outputs that an operator would look at first.
func (c *cluster) show(t *testing.T) {
	t.Helper()
	for _, args := range [][]string{
		{"get", "nodes,pods,jobs,daemonsets", "-A", "-o", "wide"}, {"get", "events", "-A", "--sort-by=.lastTimestamp"},
		{"-n", "loden-system", "logs", "-l", "app.kubernetes.io/name=loden", "--all-containers", "--prefix", "--tail=40"},
	} {
		out, err := c.ask(args...)
		t.Logf("kubectl %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}
