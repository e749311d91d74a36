package firewall_test

import (
	"context"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/rs/zerolog"
	"golang.org/x/sys/unix"

	"github.com/loden-net/loden/config/diff"
	"github.com/loden-net/loden/config/opt"
	"github.com/loden-net/loden/config/set"
	"github.com/loden-net/loden/network/firewall"
	"github.com/loden-net/loden/test/sandbox/sandboxtest"
)

func TestMain(m *testing.M) { sandboxtest.Main(m) }

// bed is a driver, and the variant that the host's rules are in.
type bed struct {
	name    string
	backend string
	legacy  bool
}

func beds() []bed {
	return []bed{
		{name: "iptables-nft", backend: "iptables"},
		{name: "iptables-legacy", backend: "iptables", legacy: true},
		{name: "nftables", backend: "nftables"},
	}
}

// onEach runs a test on every bed, each in a network namespace of its own.
func onEach(t *testing.T, test func(t *testing.T, b bed)) {
	t.Helper()
	for _, b := range beds() {
		t.Run(b.name, func(t *testing.T) {
			fresh(t)
			b.prepare(t)
			test(t, b)
		})
	}
}

// onEachAtOnce is onEach for tests that take long: the beds do not wait for each other.
func onEachAtOnce(t *testing.T, test func(t *testing.T, b bed)) {
	t.Helper()
	for _, b := range beds() {
		t.Run(b.name, func(t *testing.T) {
			t.Parallel()
			fresh(t)
			b.prepare(t)
			test(t, b)
		})
	}
}

// fresh moves the test, and the processes it starts, into a new network namespace, which ends with
// the test: its thread is never used again.
func fresh(t testing.TB) {
	t.Helper()
	runtime.LockOSThread()
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		t.Fatal(err)
	}
	shell(t, "ip link set lo up")
}

// prepare leaves a rule of another program in the old packet filter where the bed is a host
// of iptables-legacy.
func (b bed) prepare(t testing.TB) {
	if b.legacy {
		shell(t, "iptables-legacy -t mangle -A INPUT -j ACCEPT; ip6tables-legacy -t mangle -A INPUT -j ACCEPT")
	}
}

// tool returns the bed's iptables command of a family.
func (b bed) tool(f opt.Family) string {
	name := map[opt.Family]string{opt.V4: "iptables", opt.V6: "ip6tables"}[f]
	if b.legacy {
		return name + "-legacy"
	}
	return name + "-nft"
}

func (b bed) open(t testing.TB) *firewall.Firewall {
	t.Helper()
	return b.openAs(t, "")
}

// openAs opens the Firewall of the daemon with a tunnel interface.
func (b bed) openAs(t testing.TB, tunnel string) *firewall.Firewall {
	t.Helper()
	f, err := firewall.Open(t.Context(), firewall.Options{Backend: b.backend, Interface: tunnel, Log: zerolog.New(zerolog.NewTestWriter(t))})
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// shell runs a script in the test's namespace and returns its output.
func shell(t testing.TB, script string) string {
	t.Helper()
	out, err := exec.CommandContext(context.WithoutCancel(t.Context()), "sh", "-ec", script).CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", script, err, out)
	}
	return string(out)
}

// ruleset is every rule that the kernel holds, counters apart.
func ruleset(t testing.TB) string {
	t.Helper()
	return shell(t, `nft -s list ruleset
		for t in $(cat /proc/thread-self/net/ip_tables_names); do iptables-legacy -t $t -S; done
		for t in $(cat /proc/thread-self/net/ip6_tables_names); do ip6tables-legacy -t $t -S; done`)
}

// holds is the ruleset of a family and driver as its own tool lists it, counters apart: a
// single process, for tests that look often.
func (b bed) holds(t testing.TB, f opt.Family) string {
	t.Helper()
	args := []string{b.tool(f) + "-save"}
	if b.backend == "nftables" {
		args = []string{"nft", "-s", "list", "ruleset", map[opt.Family]string{opt.V4: "ip", opt.V6: "ip6"}[f]}
	}
	out, err := exec.CommandContext(t.Context(), args[0], args[1:]...).Output()
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(string(out), "\n")
	lines = slices.DeleteFunc(lines, func(l string) bool { return strings.HasPrefix(l, "#") })
	for i, l := range lines {
		if strings.HasPrefix(l, ":") {
			lines[i], _, _ = strings.Cut(l, " [")
		}
	}
	return strings.Join(lines, "\n")
}

// apply runs the changes to want and checks that no change is left.
func apply(t testing.TB, f *firewall.Firewall, want firewall.Config) []diff.Change {
	t.Helper()
	changes, err := f.Changes(t.Context(), want)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range changes {
		if err := c.Run(t.Context()); err != nil {
			t.Fatalf("%v: %v", c, err)
		}
	}
	again, err := f.Changes(t.Context(), want)
	if err != nil || len(again) != 0 {
		t.Fatalf("after %v a second comparison says %v, %v\n%s", changes, again, err, ruleset(t))
	}
	return changes
}

func scope(network, subnet string) firewall.Scope {
	return firewall.Scope{Network: netip.MustParsePrefix(network), Subnet: netip.MustParsePrefix(subnet)}
}

// scopes are those of the node that most tests are.
func scopes() opt.Dual[firewall.Scope] {
	return opt.Dual[firewall.Scope]{
		V4: opt.Some(scope("10.244.0.0/16", "10.244.1.0/24")),
		V6: opt.Some(scope("fd44::/48", "fd44:0:0:1::/64")),
	}
}

// policy is the policy of most tests.
func policy() firewall.Policy {
	return firewall.Policy{
		Masq: true, RandomFully: true, Forward: true,
		Guard: firewall.Enforce, Uplinks: set.NewNames("eth0"),
	}
}

// whole is the configuration of a dual-stack node with everything on.
func whole() firewall.Config { return policy().Config("loden0", scopes()) }

// only leaves the given commands findable in PATH, and counts their calls.
// It returns the directory; calls are lines of the file "calls" in it.
func only(t testing.TB, commands ...string) string {
	t.Helper()
	dir := t.TempDir()
	for _, name := range commands {
		path, err := exec.LookPath(name)
		if err != nil {
			t.Fatal(err)
		}
		script := "#!/bin/sh\necho " + name + ` "$@" >> ` + dir + "/calls\nexec " + path + ` "$@"` + "\n"
		if err := os.WriteFile(filepath.Join(dir, name), []byte(script), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("PATH", dir)
	return dir
}

// calls returns the commands that were started since only.
func calls(t testing.TB, dir string) []string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(dir, "calls"))
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	return strings.FieldsFunc(string(b), func(r rune) bool { return r == '\n' })
}

// cancelable returns a context that the test ends at the latest.
func cancelable(t testing.TB) (context.Context, context.CancelFunc) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	t.Cleanup(cancel)
	return ctx, cancel
}
