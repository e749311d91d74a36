package firewall_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rs/zerolog"

	"github.com/loden-net/loden/network/firewall"
)

// oldTools puts tools into PATH that report an old version, fail where the old version would,
// and run the real tools otherwise. It returns the directory.
func oldTools(t *testing.T, version string) string {
	t.Helper()
	dir := only(t, "iptables", "iptables-restore", "ip6tables", "ip6tables-restore")
	for _, name := range []string{"iptables", "iptables-restore", "ip6tables", "ip6tables-restore"} {
		path := filepath.Join(dir, name)
		script, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		pretend := fmt.Sprintf("#!/bin/sh\ncase \"$1\" in --version) echo 'iptables v%s'; exit 0;; esac\n", version)
		if strings.HasSuffix(name, "-restore") {
			pretend += "case \"$*\" in *wait*) echo 'unknown option --wait' >&2; exit 2;; esac\n"
		}
		if err := os.WriteFile(path, append([]byte(pretend), script...), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// legacyFirst makes "iptables" the old packet filter's for this test, as on old hosts.
func legacyFirst(t *testing.T) {
	t.Helper()
	dir := t.TempDir()
	for _, name := range []string{"iptables", "iptables-restore", "iptables-save", "ip6tables", "ip6tables-restore", "ip6tables-save"} {
		target := "/usr/sbin/" + strings.Replace(name, "tables", "tables-legacy", 1)
		if err := os.Symlink(target, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
}

// brokenTool puts a tool into PATH that fails while the file "broken" is in the returned
// directory, and runs the real tool otherwise.
func brokenTool(t *testing.T, name, how string) (dir string) {
	t.Helper()
	dir = only(t, "iptables", "iptables-restore", "ip6tables", "ip6tables-restore")
	path := filepath.Join(dir, name)
	script, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	pretend := "#!/bin/sh\nif [ -e " + dir + "/broken ]; then " + how + "; fi\n"
	if err := os.WriteFile(path, append([]byte(pretend), script...), 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

// TestR13SteadyStateStartsNoTool: the kernel announces nf_tables and has a generation of them, so an
// unchanged ruleset costs no process. The rules of iptables-legacy can only be listed: one process per
// family and comparison.
func TestR13SteadyStateStartsNoTool(t *testing.T) {
	for _, c := range []struct {
		backend string
		legacy  bool
		listing string // the process that a comparison of a family may start
	}{
		{backend: "iptables"}, {backend: "iptables", legacy: true, listing: "tables-save"},
		{backend: "nftables"}, {backend: "nftables", legacy: true},
	} {
		t.Run(fmt.Sprintf("%s, legacy %v", c.backend, c.legacy), func(t *testing.T) {
			fresh(t)
			if c.legacy {
				legacyFirst(t)
			}
			dir := only(t, "iptables", "iptables-restore", "iptables-save", "ip6tables", "ip6tables-restore", "ip6tables-save", "nft")
			f, err := firewall.Open(t.Context(), firewall.Options{Backend: c.backend, Log: zerolog.New(zerolog.NewTestWriter(t))})
			if err != nil {
				t.Fatal(err)
			}
			applyQuietly(t, f, whole())
			before := len(calls(t, dir))
			const cycles = 20
			for range cycles {
				if changes, err := f.Changes(t.Context(), whole()); err != nil || len(changes) > 0 {
					t.Fatal(changes, err)
				}
			}
			started := calls(t, dir)[before:]
			allowed := 0
			if c.listing != "" {
				allowed = 2 * cycles
			}
			for _, s := range started {
				if c.listing == "" || !strings.Contains(s, c.listing) {
					t.Errorf("started %q", s)
				}
			}
			if len(started) > allowed {
				t.Errorf("%d cycles started %d processes, %d are allowed", cycles, len(started), allowed)
			}
			if before == 0 {
				t.Error("no process at all was counted")
			}
		})
	}
}
