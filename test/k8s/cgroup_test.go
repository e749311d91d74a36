//go:build k8s

package k8s

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/loden-net/loden/test/sandbox/sandboxtest"
)

// cgroups is the prefix of the names of our groups. They are the only object that does not
// end with the sandbox.
const cgroups = "/loden-k8s-"

// makeCgroup makes a group in every hierarchy (cgroup v1) that kubelet looks at.
func makeCgroup(t *testing.T, name string) {
	t.Helper()
	for _, hierarchy := range []string{"cpu", "cpuacct", "cpuset", "memory", "pids", "systemd"} {
		if err := os.MkdirAll("/sys/fs/cgroup/"+hierarchy+name, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, file := range []string{"/cpuset.cpus", "/cpuset.mems"} { // empty in a new group
		all, err := os.ReadFile("/sys/fs/cgroup/cpuset" + file)
		if err == nil {
			err = os.WriteFile("/sys/fs/cgroup/cpuset"+name+file, all, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// below returns the groups at and below a name in every hierarchy, the deepest first.
func below(pattern string) ([]string, error) {
	roots, err := filepath.Glob("/sys/fs/cgroup/*" + pattern)
	var all []string
	for _, root := range roots {
		err = errors.Join(err, filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
			if errors.Is(err, fs.ErrNotExist) {
				return nil // it went meanwhile
			}
			if err == nil && d.IsDir() {
				all = append(all, path)
			}
			return err
		}))
	}
	slices.Reverse(all)
	return all, err
}

// endCgroup kills every process in and below a group.
func endCgroup(t *testing.T, name string) {
	t.Helper()
	sandboxtest.Until(t, 30*time.Second, "the processes in "+name+" to end", func() error {
		groups, err := below(name)
		for _, group := range groups {
			pids, readErr := os.ReadFile(group + "/cgroup.procs")
			if readErr != nil && !errors.Is(readErr, fs.ErrNotExist) && !errors.Is(readErr, syscall.ENODEV) {
				err = errors.Join(err, readErr)
			}
			for _, word := range strings.Fields(string(pids)) {
				err = errors.Join(err, errors.New(word+" lives in "+group))
				if pid, atoiErr := strconv.Atoi(word); atoiErr == nil && pid > 1 {
					_ = syscall.Kill(pid, syscall.SIGKILL) // it may have ended by itself
				}
			}
		}
		return err
	})
}

// removeCgroups removes our groups, in which nobody may be any more.
func removeCgroups(t *testing.T) {
	t.Helper()
	sandboxtest.Until(t, 30*time.Second, "the cgroups to be empty", func() error {
		groups, err := below(cgroups + "*")
		for _, group := range groups {
			if rmErr := os.Remove(group); rmErr != nil && !errors.Is(rmErr, fs.ErrNotExist) {
				err = errors.Join(err, rmErr)
			}
		}
		return err
	})
}
