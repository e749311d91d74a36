//go:build e2e

package e2e

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
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

// toolsEnv names the directory of the programs that are built before the sandbox is entered.
const toolsEnv = "LODEN_TEST_E2E_TOOLS"

func TestMain(m *testing.M) {
	if os.Getenv(toolsEnv) == "" {
		dir, err := build()
		if err == nil {
			err = os.Setenv(toolsEnv, dir)
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
	sandboxtest.Main(m)
}

// build makes the CRI client, two versions of loden with all its plugins, and the pods'
// image: busybox alone.
func build() (string, error) {
	dir, err := filepath.Abs("../../.cache/test/e2e")
	if err != nil {
		return "", err
	}
	cmd := exec.Command("sh", "-euc", `
mkdir -p "$1/old/cni" "$1/new/cni"
(cd ../tools/cri && go build -o "$1/cri" .)
for v in old new; do
	go build -ldflags "-X main.version=$v" -o "$1/$v/" ../../cmd/loden ../../cmd/loden-cni
	(cd ../tools/etcd && go build -o "$1/$v/etcd" go.etcd.io/etcd/server/v3)
	../tools/cni/build.sh "$1/$v/cni"
done
c=$(buildah from scratch)
trap 'buildah rm "$c" >/dev/null' EXIT
root=$(buildah mount "$c")
mkdir -p "$root/bin" "$root/tmp"
cp /bin/busybox "$root/bin/"
for a in sh sleep ping httpd cat echo ip; do ln -s busybox "$root/bin/$a"; done
buildah config --entrypoint '["/bin/sleep","1000000"]' --env PATH=/bin "$c"
rm -f "$1/pod.tar"
buildah commit -q "$c" docker-archive:"$1/pod.tar":`+podImage+` >/dev/null`, "sh", dir)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOWORK=off")
	cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
	return dir, cmd.Run()
}

func TestPodsMadeByContainerd(t *testing.T) {
	t.Cleanup(func() { removeCgroups(t) })
	bin := filepath.Join(t.TempDir(), "bin")
	current := func(version string) { // replaces all programs in a single step, as a package manager would
		t.Helper()
		if err := errors.Join(os.Symlink(tool(version), bin+".new"), os.Rename(bin+".new", bin)); err != nil {
			t.Fatal(err)
		}
	}
	current("old")
	l, err := lab.New(lab.Options{
		Nodes: 2, Families: lab.Dual, Underlay: lab.IPv4, Bin: bin, Report: func(line string) { t.Log(line) },
		Flags: []string{"--cni-conf-dir", "/etc/cni/net.d", "--cni-bin-dir", "/run/loden/bin"},
	})
	if l != nil {
		t.Cleanup(func() {
			if err := l.Close(); err != nil {
				t.Error(err)
			}
		})
	}
	if err != nil {
		t.Fatal(err)
	}
	a, b := newRuntime(t, l.Nodes[0]), newRuntime(t, l.Nodes[1])
	if out, err := a.node.Output(a.cri, a.dir+"/sock", "status"); err != nil || !strings.Contains(out, "NetworkReady false") {
		t.Errorf("before loden runs: %v %s, want NetworkReady false", err, out)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	if err := l.Up(ctx); err != nil {
		t.Fatal(err)
	}
	a.ready(t)
	b.ready(t)
	web, client := a.run(t, "web", 18080), b.run(t, "client", 18081)
	if len(web.IPs) != 2 || len(client.IPs) != 2 {
		t.Fatalf("pods have %v and %v, want two addresses each", web.IPs, client.IPs)
	}
	if err := client.ping(3, "0.2", web.IPs...); err != nil {
		t.Error(err)
	}
	for _, ip := range a.node.Internet.All() {
		hostPort(t, b.node, netip.AddrPortFrom(ip, 18080), "web")
	}
	t.Run("containerd restarts and loden is upgraded under a stream", func(t *testing.T) {
		upgradeUnderStream(t, l, []*runtime{a, b}, client, web, func() { current("new") })
	})
	again := a.run(t, "again", 18082)
	if err := client.ping(3, "0.2", again.IPs...); err != nil {
		t.Error(err)
	}
	t.Run("a pod that containerd has lost gives its addresses back", func(t *testing.T) {
		lost := a.begin(t, "lost", 18083)
		a.lose(t, lost)
		sandboxtest.Until(t, 3*time.Minute, "the lost pod's addresses to be free", func() error { return a.freed(lost, 18083) })
		if err := a.freed(again, 18082); err == nil {
			t.Error("a living pod's addresses are free")
		}
		if err := client.ping(3, "0.2", again.IPs...); err != nil {
			t.Error(err)
		}
	})
}

// freed returns an error while a pod still holds addresses, or a rule for its port.
func (r *runtime) freed(p pod, hostPort int) error {
	leases, err := r.node.Output("ls", "/var/lib/cni/networks/loden")
	if err != nil {
		return err
	}
	rules, err := r.node.Output("iptables-save", "-t", "nat")
	if err != nil {
		return err
	}
	for _, ip := range p.IPs {
		if strings.Contains(leases, ip.String()+"\n") {
			return fmt.Errorf("%s is in use", ip)
		}
	}
	if strings.Contains(rules, "dport "+strconv.Itoa(hostPort)) {
		return fmt.Errorf("there are rules for port %d", hostPort)
	}
	return nil
}

// upgradeUnderStream pings both ways of life through everything that may be restarted, and
// wants every answer.
func upgradeUnderStream(t *testing.T, l *lab.Lab, runtimes []*runtime, from, to pod, upgrade func()) {
	t.Helper()
	stream := make(chan error, 1)
	go func() { stream <- from.ping(1500, "0.02", to.IPs...) }() // 30 s
	// ExecSync needs the client's containerd, so that containerd stays.
	runtimes[0].stop(t)
	runtimes[0].start(t)
	upgrade()
	for _, n := range l.Nodes {
		if err := n.Stop(syscall.SIGTERM); err != nil {
			t.Error(err)
		}
		if err := n.Start(); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		err := n.Serving(ctx)
		cancel()
		if err != nil {
			t.Error(err)
		}
		if out, err := n.Loden("version"); err != nil || !strings.Contains(out, "new") {
			t.Errorf("%s runs %s, %v: nothing was upgraded", n.Name, out, err)
		}
	}
	select {
	case err := <-stream:
		t.Fatalf("the stream was over before the upgrade was: %v", err)
	default:
	}
	if err := <-stream; err != nil {
		t.Error(err)
	}
}

// hostPort asks a node's port from another node and wants the pod behind it.
func hostPort(t *testing.T, from *lab.Node, at netip.AddrPort, want string) {
	t.Helper()
	sandboxtest.Until(t, 30*time.Second, "hostPort at "+at.String(), func() error {
		return from.Do(func() error {
			conn, err := net.DialTimeout("tcp", at.String(), 5*time.Second)
			if err != nil {
				return err
			}
			dial := func(context.Context, string, string) (net.Conn, error) { return conn, nil }
			transport := &http.Transport{DisableKeepAlives: true, DialContext: dial}
			answer, err := (&http.Client{Transport: transport, Timeout: 5 * time.Second}).Get("http://" + at.String() + "/index.html")
			if err != nil {
				return err
			}
			defer answer.Body.Close()
			body, err := io.ReadAll(answer.Body)
			if err == nil && strings.TrimSpace(string(body)) != want {
				err = fmt.Errorf("%s answered %q", at, body)
			}
			return err
		})
	})
}

// removeCgroups removes the groups that runc leaves above a pod's.
func removeCgroups(t *testing.T) {
	t.Helper()
	sandboxtest.Until(t, 30*time.Second, "the pods' cgroups to be empty", func() error {
		var left []error
		for _, pattern := range []string{"/sys/fs/cgroup/*" + cgroup + "/*/*", "/sys/fs/cgroup/*" + cgroup + "/*", "/sys/fs/cgroup/*" + cgroup} {
			made, err := filepath.Glob(pattern)
			left = append(left, err)
			for _, path := range made {
				if info, err := os.Stat(path); err == nil && info.IsDir() {
					left = append(left, os.Remove(path))
				}
			}
		}
		return errors.Join(left...)
	})
}
