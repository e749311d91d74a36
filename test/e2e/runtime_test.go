//go:build e2e

package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/loden-net/loden/test/lab"
	"github.com/loden-net/loden/test/sandbox/sandboxtest"
)

const (
	podImage = "localhost/loden-pod:test"
	cgroup   = "/loden-e2e" // parent of the pods' groups, below each hierarchy
)

// runtime is containerd on a node.
type runtime struct {
	node *lab.Node
	cri  string // our client
	dir  string // everything of this containerd
	cmd  *exec.Cmd
	log  *os.File
}

// newRuntime starts containerd on a node, with the pod image in it.
func newRuntime(t *testing.T, n *lab.Node) *runtime {
	t.Helper()
	r := &runtime{node: n, cri: tool("cri"), dir: "/run/ctd/" + n.Name}
	if err := os.MkdirAll(r.dir, 0o755); err != nil {
		t.Fatal(err)
	}
	config := fmt.Sprintf(`version = 2
root = "%[1]s/root"
state = "%[1]s/state"
[grpc]
  address = "%[1]s/sock"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "%[2]s"
  restrict_oom_score_adj = true
  disable_apparmor = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/run/loden/bin"
    conf_dir = "/etc/cni/net.d"
`, r.dir, podImage)
	if err := os.WriteFile(r.dir+"/config.toml", []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	r.start(t)
	t.Cleanup(func() {
		r.stop(t)
		if t.Failed() {
			if log, err := os.ReadFile(r.log.Name()); err == nil {
				t.Logf("containerd on %s said:\n%s", n.Name, log[max(0, len(log)-3000):])
			}
		}
	})
	if err := n.Run("ctr", "-a", r.dir+"/sock", "-n", "k8s.io", "image", "import", tool("pod.tar")); err != nil {
		t.Fatal(err)
	}
	return r
}

// start starts containerd and waits until it answers.
func (r *runtime) start(t *testing.T) {
	t.Helper()
	var err error
	if r.log, err = os.OpenFile(r.dir+"/log", os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600); err != nil {
		t.Fatal(err)
	}
	r.cmd = r.node.Command(context.Background(), "containerd", "-c", r.dir+"/config.toml")
	r.cmd.Stdout, r.cmd.Stderr = r.log, r.log
	if err := r.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	sandboxtest.Until(t, time.Minute, "containerd to answer", func() error {
		_, err := r.node.Output(r.cri, r.dir+"/sock", "status")
		return err
	})
}

// stop ends containerd; its containers go on.
func (r *runtime) stop(t *testing.T) {
	t.Helper()
	if err := r.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Error(err)
	}
	if err := r.cmd.Wait(); err != nil {
		t.Logf("containerd on %s: %v", r.node.Name, err)
	}
}

// ready waits until the runtime says that its network is ready, as kubelet does.
func (r *runtime) ready(t *testing.T) {
	t.Helper()
	sandboxtest.Until(t, time.Minute, "NetworkReady on "+r.node.Name, func() error {
		out, err := r.node.Output(r.cri, r.dir+"/sock", "status")
		if err == nil && !strings.Contains(out, "NetworkReady true") {
			err = errors.New(out)
		}
		return err
	})
}

// pod is a pod made through CRI.
type pod struct {
	on        *runtime
	Pod       string       `json:"pod"`
	Container string       `json:"container"`
	IPs       []netip.Addr `json:"ips"`
}

// run makes a pod that serves its name over HTTP at port 80, and at hostPort of the node, and
// stops it at the end of the test.
func (r *runtime) run(t *testing.T, name string, hostPort int) pod {
	t.Helper()
	p := r.begin(t, name, hostPort)
	t.Cleanup(func() {
		if err := r.node.Run(r.cri, r.dir+"/sock", "stop", p.Pod); err != nil {
			t.Error(err)
		}
	})
	return p
}

// begin is run without the stop.
func (r *runtime) begin(t *testing.T, name string, hostPort int) pod {
	t.Helper()
	serve := "echo " + name + " >/tmp/index.html; exec httpd -f -p 80 -h /tmp"
	out, err := r.node.Output(r.cri, r.dir+"/sock", "run", name, podImage, strconv.Itoa(hostPort), "/bin/sh", "-c", serve)
	if err != nil {
		t.Fatal(err)
	}
	p := pod{on: r}
	if err := json.Unmarshal([]byte(out), &p); err != nil {
		t.Fatalf("%v in %s", err, out)
	}
	return p
}

// lose takes a pod from containerd as a crash does: its processes end, its network namespace goes,
// and containerd knows nothing of it any more. Nobody calls DEL.
func (r *runtime) lose(t *testing.T, p pod) {
	t.Helper()
	ctr := func(words ...string) error {
		return r.node.Run("ctr", append([]string{"-a", r.dir + "/sock", "-n", "k8s.io"}, words...)...)
	}
	for _, id := range []string{p.Container, p.Pod} {
		// containerd sees the end of the process too, and may remove the task at the same time.
		sandboxtest.Until(t, 30*time.Second, "containerd to forget "+id, func() error {
			killed := ctr("task", "rm", "-f", id)
			if err := ctr("container", "rm", id); err != nil {
				return errors.Join(killed, err)
			}
			return nil
		})
	}
	r.stop(t)
	out, err := r.node.Output("cat", "/var/lib/cni/loden/loden/"+p.Pod+"@eth0")
	var record struct{ NetNS string }
	if err := errors.Join(err, json.Unmarshal([]byte(out), &record)); err != nil {
		t.Fatal(err)
	}
	if err := r.node.Run("sh", "-c", `umount "$1" 2>/dev/null; rm "$1"`, "sh", record.NetNS); err != nil {
		t.Error(err)
	}
	r.start(t)
}

// exec runs a command in the pod and returns its output.
func (p pod) exec(words ...string) (string, error) {
	return p.on.node.Output(p.on.cri, append([]string{p.on.dir + "/sock", "exec", p.Container}, words...)...)
}

// ping sends count pings to each address at once and wants every answer.
func (p pod) ping(count int, every string, to ...netip.Addr) error {
	lost := make(chan error, len(to))
	for _, addr := range to {
		go func() {
			out, err := p.exec("ping", "-q", "-c", strconv.Itoa(count), "-i", every, "-W", "10", addr.String())
			if err == nil && !strings.Contains(out, " 0% packet loss") {
				err = errors.New("packets lost")
			}
			if err != nil {
				err = fmt.Errorf("ping %s: %w: %s", addr, err, out)
			}
			lost <- err
		}()
	}
	var all error
	for range to {
		all = errors.Join(all, <-lost)
	}
	return all
}

// tool returns a file that build made.
func tool(name string) string { return filepath.Join(os.Getenv(toolsEnv), name) }
