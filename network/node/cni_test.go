package node

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/containernetworking/cni/libcni"
	"pgregory.net/rapid"

	"github.com/loden-net/loden/config"
	"github.com/loden-net/loden/config/diff"
)

// cniHost is a runtime's two directories and a source of plugins.
type cniHost struct {
	cniInstall
	t   testing.TB
	src string
}

func newCNIHost(t testing.TB) *cniHost {
	t.Helper()
	dir, err := os.MkdirTemp(t.TempDir(), "host")
	if err != nil {
		t.Fatal(err)
	}
	h := &cniHost{t: t, src: filepath.Join(dir, "src")}
	h.cniInstall, err = newCNI(Settings{Settings: config.Settings{
		CNI:        config.CNI{ConfDir: filepath.Join(dir, "net.d"), BinDir: filepath.Join(dir, "bin"), Source: h.src},
		SubnetFile: "/run/flannel/subnet.env", RunDir: "/run/loden", Interface: "loden0",
	}})
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range plugins() {
		h.put(filepath.Join(h.src, name), name+" 1")
	}
	return h
}

func (h *cniHost) put(path, content string) {
	h.t.Helper()
	if err := config.WriteFile(path, []byte(content), 0o755, 0o755); err != nil {
		h.t.Fatal(err)
	}
}

func (h *cniHost) content(path string) string {
	data, err := os.ReadFile(path)
	if err != nil {
		return "none"
	}
	return string(data)
}

// run runs changes and returns them as text, without directories.
func (h *cniHost) run(changes []diff.Change, err error) []string {
	h.t.Helper()
	if err != nil {
		h.t.Fatal(err)
	}
	var done []string
	for _, c := range changes {
		if err := c.Run(h.t.Context()); err != nil {
			h.t.Fatal(err)
		}
		done = append(done, c.Verb+" "+filepath.Base(c.Object))
	}
	return done
}

func TestCNIIsInstalledLastAndOnce(t *testing.T) {
	h := newCNIHost(t)
	got := h.run(h.install(t.Context()))
	want := []string{"set .loden-plugins", "add loden-cni", "add bridge", "add host-local", "add loopback", "add portmap", "add 10-loden.conflist"}
	if !slices.Equal(got, want) {
		t.Errorf("first install did %v, want %v", got, want)
	}
	if again := h.run(h.install(t.Context())); len(again) > 0 {
		t.Errorf("second install did %v", again)
	}
	info, err := os.Stat(filepath.Join(h.binDir, "bridge"))
	if err != nil || info.Mode() != 0o755 {
		t.Errorf("bridge: %v %v", info.Mode(), err)
	}
	list, err := libcni.ConfListFromFile(filepath.Join(h.confDir, conflistName))
	if err != nil || list.CNIVersion != "1.1.0" || len(list.Plugins) != 2 {
		t.Errorf("libcni reads %+v, %v", list, err)
	}
}

func TestCNIUpgradeReplacesOnlyOurPlugins(t *testing.T) {
	h := newCNIHost(t)
	h.put(filepath.Join(h.binDir, "portmap"), "a distribution's")
	h.run(h.install(t.Context()))
	later := time.Now().Add(time.Hour)
	for _, name := range plugins() {
		h.put(filepath.Join(h.src, name), name+" 2")
		if err := os.Chtimes(filepath.Join(h.src, name), later, later); err != nil {
			t.Fatal(err)
		}
	}
	got := h.run(h.install(t.Context()))
	want := []string{"set .loden-plugins", "replace loden-cni", "replace bridge", "replace host-local", "replace loopback"}
	if !slices.Equal(got, want) {
		t.Errorf("upgrade did %v, want %v", got, want)
	}
	if again := h.run(h.install(t.Context())); len(again) > 0 {
		t.Errorf("install after the upgrade did %v", again)
	}
	if got := h.content(filepath.Join(h.binDir, "portmap")); got != "a distribution's" {
		t.Errorf("the distribution's portmap is now %q", got)
	}
}

func TestCNIRemoveTakesOnlyItsOwn(t *testing.T) {
	h := newCNIHost(t)
	h.put(filepath.Join(h.binDir, "portmap"), "a distribution's")
	h.put(filepath.Join(h.confDir, "20-other.conflist"), "{}")
	h.run(h.install(t.Context()))
	h.put(filepath.Join(h.binDir, "bridge"), "somebody's newer one")
	got := h.run(h.remove(t.Context()))
	want := []string{"delete 10-loden.conflist", "delete loden-cni", "delete host-local", "delete loopback", "delete .loden-plugins"}
	if !slices.Equal(got, want) {
		t.Errorf("remove did %v, want %v", got, want)
	}
	if again := h.run(h.remove(t.Context())); len(again) > 0 {
		t.Errorf("second remove did %v", again)
	}
	h.put(filepath.Join(h.confDir, conflistName), `{"name":"mine","plugins":[{"type":"loden-cni"}]}`)
	if got := h.run(h.remove(t.Context())); len(got) > 0 {
		t.Errorf("remove of somebody's own configuration did %v", got)
	}
}

func TestCNIConflictsAreThoseThatSortEarlier(t *testing.T) {
	h := newCNIHost(t)
	for _, name := range []string{"05-cilium.conflist", "10-flannel.conflist", "10-loden.conflist", "00-x.conf", "01-y.json", "02-z.txt", "99-a.conflist"} {
		h.put(filepath.Join(h.confDir, name), "{}")
	}
	got, err := h.conflicts()
	if err != nil {
		t.Fatal(err)
	}
	for i := range got {
		got[i] = filepath.Base(got[i])
	}
	if want := []string{"00-x.conf", "01-y.json", "05-cilium.conflist", "10-flannel.conflist"}; !slices.Equal(got, want) {
		t.Errorf("conflicts %v, want %v", got, want)
	}
}

func TestCNIMissingSourceSaysWhatToDo(t *testing.T) {
	h := newCNIHost(t)
	if err := os.Remove(filepath.Join(h.src, "portmap")); err != nil {
		t.Fatal(err)
	}
	if _, err := h.install(t.Context()); err == nil || !strings.Contains(err.Error(), "--cni-source-dir") {
		t.Errorf("install without a source of portmap: %v", err)
	}
	h.put(filepath.Join(h.binDir, "portmap"), "a distribution's")
	h.run(h.install(t.Context()))
}

// After any changes of other programs to the directories: a second install has no change to
// make, a foreign file under a shared name stays, and remove deletes every file of ours.
func TestCNIInstallSettles(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		h := newCNIHost(t)
		foreign := map[string]string{}
		for range rapid.IntRange(0, 4).Draw(r, "steps") {
			name := rapid.SampledFrom(plugins()[1:]).Draw(r, "plugin")
			path := filepath.Join(h.binDir, name)
			switch rapid.SampledFrom([]string{"install", "foreign", "delete", "upgrade"}).Draw(r, "step") {
			case "install":
				h.run(h.install(t.Context()))
			case "foreign":
				h.put(path, "foreign")
				foreign[name] = "foreign"
			case "delete":
				_ = os.Remove(path)
				delete(foreign, name)
			case "upgrade":
				h.put(filepath.Join(h.src, name), name+" "+rapid.StringMatching("[2-9]").Draw(r, "version"))
			}
		}
		h.run(h.install(t.Context()))
		if again := h.run(h.install(t.Context())); len(again) > 0 {
			r.Fatalf("second install did %v", again)
		}
		h.run(h.remove(t.Context()))
		for _, name := range plugins() {
			want, ok := foreign[name]
			if !ok {
				want = "none"
			}
			if got := h.content(filepath.Join(h.binDir, name)); got != want {
				r.Fatalf("after remove %s is %q, want %q", name, got, want)
			}
		}
	})
}

func FuzzParseManifest(f *testing.F) {
	f.Add([]byte(strings.Repeat("0a", 32) + "  bridge\n"))
	f.Add([]byte("x  y\n\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		for name, hash := range parseManifest(data) {
			if len(hash) != 64 || strings.Contains(name, "\n") {
				t.Errorf("%q: entry %q %q", data, name, hash)
			}
		}
	})
}
