//go:build image

package image

import (
	"debug/elf"
	"encoding/json"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestEveryProgramOfTheARM64ImageIsForARM64(t *testing.T) {
	root := os.Getenv(arm64Env)
	data, err := os.ReadFile(root + ".json")
	if err != nil {
		t.Fatal(err)
	}
	var image struct {
		OCIv1 struct {
			Architecture string `json:"architecture"`
		}
	}
	if err := json.Unmarshal(data, &image); err != nil || image.OCIv1.Architecture != "arm64" {
		t.Errorf("image's configuration says %q (%v), want arm64", image.OCIv1.Architecture, err)
	}
	programs := 0
	err = filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		file, err := elf.Open(path)
		if err != nil {
			return nil // no program
		}
		defer file.Close()
		programs++
		if file.Machine != elf.EM_AARCH64 {
			t.Errorf("%s is for %v", path, file.Machine)
		}
		return nil
	})
	if err != nil || programs < 100 {
		t.Errorf("%d programs and libraries, want more than 100: %v", programs, err)
	}
}

// QEMU's user mode has no netfilter sockets (7.2). What asks for one must get as far as
// that: its loader and all its libraries are there and are the right ones then.
func TestProgramsOfTheARM64ImageStart(t *testing.T) {
	const noSocket = "Protocol not supported"
	root := os.Getenv(arm64Env)
	qemu, err := exec.LookPath("qemu-aarch64-static")
	if err != nil {
		t.Fatal(err)
	}
	program, err := os.ReadFile(qemu)
	if err != nil {
		t.Fatal(err)
	}
	inside := filepath.Join(root, "tmp", "qemu")
	if err := os.WriteFile(inside, program, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.Remove(inside) }) // the next build replaces it all
	for _, c := range []struct {
		command string
		want    []string // any of them
	}{
		{"/usr/bin/loden --version", []string{"loden "}},
		{"/usr/bin/loden check", []string{"ok    privilege"}},
		{"/usr/bin/loden-cni", []string{`"1.1.0"]`}},
		{"/usr/bin/cni/bridge", []string{`"1.1.0"]`}},
		{"/usr/bin/cni/host-local", []string{`"1.1.0"]`}},
		{"/usr/sbin/iptables-legacy -V", []string{"iptables v1."}},
		{"/usr/sbin/ip6tables-legacy -V", []string{"ip6tables v1."}},
		{"/usr/sbin/iptables -V", []string{"iptables v1.", noSocket}},
		{"/usr/sbin/ip6tables-nft -V", []string{"ip6tables v1.", noSocket}},
		{"/usr/sbin/nft -v", []string{"nftables v", noSocket}},
	} {
		cmd := exec.Command("chroot", append([]string{root, "/tmp/qemu"}, strings.Fields(c.command)...)...)
		cmd.Env = []string{"CNI_COMMAND=VERSION", "PATH=/usr/bin:/usr/sbin"}
		out, err := cmd.CombinedOutput()
		if !slices.ContainsFunc(c.want, func(want string) bool { return strings.Contains(string(out), want) }) {
			t.Errorf("%s: want one of %q: %v: %s", c.command, c.want, err, out)
		}
		t.Logf("%s: %.60s", c.command, out)
	}
}
