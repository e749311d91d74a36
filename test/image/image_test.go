//go:build image

package image

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/loden-net/loden/test/lab"
	"github.com/loden-net/loden/test/sandbox/sandboxtest"
)

// rootEnv and arm64Env name the directories with the files of the image for this machine
// and of the one for arm64, which are made before the sandbox is entered: their build needs
// the network.
const (
	rootEnv  = "LODEN_TEST_IMAGE_ROOT"
	arm64Env = "LODEN_TEST_IMAGE_ROOT_ARM64"
)

func TestMain(m *testing.M) {
	for env, arch := range map[string]string{rootEnv: runtime.GOARCH, arm64Env: "arm64"} {
		if os.Getenv(env) != "" {
			continue
		}
		root, err := build(arch)
		if err == nil {
			err = os.Setenv(env, root)
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
	sandboxtest.Main(m)
}

// cgroup is the parent of the containers', below each hierarchy.
const cgroup = "/loden-image-test"

// build builds the image for an architecture as `make image` does and unpacks it.
func build(arch string) (string, error) {
	root, err := filepath.Abs("../../.cache/image/test-" + arch)
	if err != nil {
		return "", err
	}
	const script = `set -eu
tag=localhost/loden:test-$ARCH
../../deploy/image/build.sh $tag
c=$(buildah from --pull-never --platform linux/$ARCH $tag)
trap 'buildah rm "$c" >/dev/null' EXIT
rm -rf "$1" && mkdir -p "$(dirname "$1")"
cp -a "$(buildah mount "$c")" "$1"
buildah inspect --type image $tag >"$1.json"`
	cmd := exec.Command("sh", "-c", script, "sh", root)
	cmd.Env = append(os.Environ(), "LODEN_OFFLINE=1", "STORAGE_DRIVER=overlay", "ARCH="+arch)
	cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
	return root, cmd.Run()
}

func TestImageHasLabelsHealthCheckAndBillOfMaterials(t *testing.T) {
	out, err := os.ReadFile(os.Getenv(rootEnv) + ".json")
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`"Healthcheck"`, `"/usr/bin/loden"`, "org.opencontainers.image.revision", "org.opencontainers.image.licenses"} {
		if !strings.Contains(string(out), want) {
			t.Errorf("image has no %s", want)
		}
	}
	data, err := os.ReadFile(filepath.Join(os.Getenv(rootEnv), "usr/share/loden/sbom.spdx.json"))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"pkg:deb/debian/nftables@", "pkg:deb/debian/iptables@", "pkg:golang/go.etcd.io/etcd/client/v3@", "pkg:golang/github.com/containernetworking/plugins@"} {
		if !strings.Contains(string(data), want) {
			t.Errorf("bill of materials has no %s", want)
		}
	}
	if strings.Contains(string(data), "go.etcd.io/etcd/server") {
		t.Error("the image contains etcd's server")
	}
}

func TestImageHasEveryFirewallProgram(t *testing.T) {
	for _, program := range []string{
		"nft", "iptables-nft", "ip6tables-nft", "iptables-legacy", "ip6tables-legacy",
		"iptables-nft-restore", "ip6tables-legacy-restore", "iptables-legacy-save", "ip6tables-nft-save",
	} {
		out, err := exec.Command("chroot", os.Getenv(rootEnv), "/usr/sbin/"+program, "--version").CombinedOutput()
		if err != nil {
			t.Errorf("%s: %v: %s", program, err, out)
		}
	}
}

// Every `loden` of this lab is started in a container made from the image, whose process
// has the capabilities that docs/kubernetes.md asks for.
func TestNodesRunFromTheImage(t *testing.T) {
	for _, engine := range []string{"wireguard-go"} {
		t.Run(engine, func(t *testing.T) {
			l, err := lab.New(lab.Options{
				Nodes: 2, Pods: 1, Families: lab.Dual, Underlay: lab.IPv4, Engines: []string{engine},
				Bin: containerised(t), Report: func(line string) { t.Log(line) },
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
			for _, n := range l.Nodes { // /proc/sys is read-only in a container: the host forwards already
				if err := n.Run("sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1"); err != nil {
					t.Fatal(err)
				}
			}
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
			defer cancel()
			err = l.Up(ctx)
			if err != nil {
				for _, n := range l.Nodes {
					if n.Daemon() != nil {
						t.Log(n.Name, "said:\n", n.Daemon().Tail(30))
					}
				}
				t.Fatal(err)
			}
			for _, problem := range l.Check(ctx).Problems {
				t.Error(problem)
			}
			for _, n := range l.Nodes {
				if out, err := n.Loden("status"); err != nil {
					t.Errorf("health check on %s: %v\n%s", n.Name, err, out)
				}
				for _, file := range []string{"/etc/cni/net.d/10-loden.conflist", "/run/loden/bin/loden-cni", "/run/loden/bin/portmap"} {
					if _, err := os.Stat(n.Path(file)); err != nil {
						t.Errorf("%s on %s: %v", file, n.Name, err)
					}
				}
			}
		})
	}
}

// containerised makes a directory of programs in which `loden` starts a container, and the
// plugins are the image's.
func containerised(t *testing.T) string {
	t.Helper()
	t.Cleanup(func() { removeCgroups(t) })
	dir := t.TempDir()
	root := os.Getenv(rootEnv)
	template, err := json.Marshal(runtimeConfig(root))
	if err != nil {
		t.Fatal(err)
	}
	// runc passes signals on to the container, and ends with it.
	script := fmt.Sprintf(`#!/bin/sh
bundle=$(mktemp -d /run/bundle.XXXXXX)
id=$(basename $bundle)
args='"/usr/bin/loden"'
for a; do args="$args,\"$a\""; done
cat >$bundle/config.json <<END
%s
END
exec runc --root /run/runc run --bundle $bundle $id
`, strings.NewReplacer(`"ARGS"`, "$args", "ID", "$id").Replace(string(template)))
	for name, content := range map[string]string{"loden": script} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for link, target := range map[string]string{
		"loden-cni": filepath.Join(root, "usr/bin/loden-cni"), "cni": filepath.Join(root, "usr/bin/cni"),
		"etcdctl": mustAbs(t, "../../bin/etcdctl"), "etcd": mustAbs(t, "../../bin/etcd"),
	} {
		if err := os.Symlink(target, filepath.Join(dir, link)); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// removeCgroups ends what outlived its container, as the engine does by design, and removes
// the containers' groups.
func removeCgroups(t *testing.T) {
	t.Helper()
	sandboxtest.Until(t, 30*time.Second, "the containers' cgroups to be empty", func() error {
		groups, err := filepath.Glob("/sys/fs/cgroup/*" + cgroup + "/*/cgroup.procs")
		left := []error{err}
		for _, procs := range groups {
			pids, err := os.ReadFile(procs)
			left = append(left, err)
			for _, word := range strings.Fields(string(pids)) {
				if pid, err := strconv.Atoi(word); err == nil && pid > 1 {
					_ = syscall.Kill(pid, syscall.SIGKILL) // it may have ended by itself
				}
			}
			left = append(left, os.Remove(filepath.Dir(procs)))
		}
		parents, err := filepath.Glob("/sys/fs/cgroup/*" + cgroup)
		left = append(left, err)
		for _, path := range parents {
			left = append(left, os.Remove(path))
		}
		return errors.Join(left...)
	})
}

func mustAbs(t *testing.T, path string) string {
	t.Helper()
	abs, err := filepath.Abs(path)
	if err != nil {
		t.Fatal(err)
	}
	return abs
}

// runtimeConfig is a container runtime's form of hostNetwork, the two capabilities,
// the device and the host's directories. "ARGS" stands for the arguments, ID for a name.
func runtimeConfig(root string) map[string]any {
	type m = map[string]any
	caps := []string{"CAP_NET_ADMIN", "CAP_NET_RAW"}
	bind := func(path string) m {
		return m{"source": path, "destination": path, "type": "bind", "options": []string{"rbind", "rw"}}
	}
	return m{
		"ociVersion": "1.0.2",
		"process": m{
			"user": m{"uid": 0, "gid": 0}, "args": []string{"ARGS"}, "cwd": "/", "noNewPrivileges": true,
			"env":          []string{"PATH=/usr/bin:/usr/sbin"},
			"capabilities": m{"bounding": caps, "effective": caps, "permitted": caps},
		},
		"root": m{"path": root, "readonly": true},
		"mounts": []m{
			{"source": "proc", "destination": "/proc", "type": "proc"},
			{"source": "tmpfs", "destination": "/dev", "type": "tmpfs", "options": []string{"nosuid", "mode=755"}},
			{"source": "sysfs", "destination": "/sys", "type": "sysfs", "options": []string{"ro", "nosuid", "noexec", "nodev"}},
			bind("/run"), bind("/var/lib"), bind("/etc/cni"),
		},
		"linux": m{
			"namespaces": []m{{"type": "mount"}}, // network and processes are the host's
			"devices":    []m{{"path": "/dev/net/tun", "type": "c", "major": 10, "minor": 200, "fileMode": 438, "uid": 0, "gid": 0}},
			"resources": m{"devices": []m{
				{"allow": false, "access": "rwm"}, {"allow": true, "type": "c", "major": 10, "minor": 200, "access": "rwm"},
			}},
			"cgroupsPath":   cgroup + "/ID",
			"readonlyPaths": []string{"/proc/sys", "/proc/sysrq-trigger", "/proc/bus", "/proc/fs", "/proc/irq"},
		},
	}
}
