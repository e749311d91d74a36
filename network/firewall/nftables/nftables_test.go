package nftables

import (
	"fmt"
	"net/netip"
	"os/exec"
	"runtime"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/loden-net/loden/config/opt"
	"github.com/loden-net/loden/config/set"
	"github.com/loden-net/loden/network/firewall/netfilter"
	"github.com/loden-net/loden/network/firewall/rule"
	"github.com/loden-net/loden/test/sandbox/sandboxtest"
)

func TestMain(m *testing.M) { sandboxtest.Main(m) }

// fresh gives the test a network namespace of its own, which ends with it.
func fresh(t *testing.T) {
	t.Helper()
	runtime.LockOSThread()
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		t.Fatal(err)
	}
}

func shell(t *testing.T, script string) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "sh", "-ec", script).CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", script, err, out)
	}
	return string(out)
}

func scopeOf(f opt.Family) rule.Scope {
	if f == opt.V6 {
		return rule.Scope{Network: netip.MustParsePrefix("fd44::/48"), Subnet: netip.MustParsePrefix("fd44:0:0:1::/64")}
	}
	return rule.Scope{Network: netip.MustParsePrefix("10.244.0.0/16"), Subnet: netip.MustParsePrefix("10.244.1.0/24")}
}

// lists returns rules at every place.
func lists(f opt.Family, tunnel string) Desired {
	s := scopeOf(f)
	guard := rule.GuardLists(rule.Guarding{
		Scope: s, Tunnel: tunnel, Uplinks: set.NewNames("eth0"), Enforce: true,
		Except: set.NewPrefixes(netip.MustParsePrefix("10.244.80.0/24"), netip.MustParsePrefix("fd44:0:0:80::/64")),
	})
	return Desired{
		rule.GuardIn: opt.Some(guard[0]), rule.GuardOut: opt.Some(guard[1]), rule.Forward: opt.Some(rule.ForwardAccept(s)),
		rule.Postrouting: opt.Some(rule.Postroute(rule.Masquerading{Scope: s, Mark: rule.KubeProxyMark(), RandomFully: true})),
	}
}

// state reads the table of a daemon.
func state(t *testing.T, o rule.Owner, f opt.Family) State {
	t.Helper()
	c, err := netfilter.Dial()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	s, err := Read(c, o, f)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// apply makes the table as desired and returns its new state.
func apply(t *testing.T, o rule.Owner, f opt.Family, d Desired) State {
	t.Helper()
	tool, err := Find()
	if err != nil {
		t.Fatal(err)
	}
	if err := tool.Apply(t.Context(), state(t, o, f), d, nil); err != nil {
		t.Fatal(err)
	}
	return state(t, o, f)
}

func TestAppliedRulesAreInSyncAndGoWithoutATrace(t *testing.T) {
	for _, tunnel := range []string{"loden0", "wg7", "odd@name"} {
		for _, f := range opt.Families() {
			fresh(t)
			o := rule.OwnerOf(tunnel)
			d := lists(f, tunnel)
			before := state(t, o, f)
			s := apply(t, o, f, d)
			for p, list := range d {
				if h := s.Compare(p, list); !h.InSync || h.Scope != opt.Some(scopeOf(f)) {
					t.Errorf("%s %s %s: %+v", tunnel, f, p, h)
				}
				if h := before.Compare(p, list); h.InSync || h.Ours {
					t.Errorf("%s %s %s, before: %+v", tunnel, f, p, h)
				}
			}
			if again := apply(t, o, f, d); again.Fingerprint() != s.Fingerprint() {
				t.Errorf("%s %s: a second application changed the rules", tunnel, f)
			}
			none := Desired{}
			for _, p := range rule.Places() {
				none[p] = opt.None[rule.List]()
			}
			apply(t, o, f, none)
			if left := shell(t, "nft list ruleset"); left != "" {
				t.Errorf("%s %s: left behind:\n%s", tunnel, f, left)
			}
		}
	}
}

func TestEveryDifferenceIsSeen(t *testing.T) {
	fresh(t)
	o := rule.Owner{}
	d := lists(opt.V4, "loden0")
	apply(t, o, opt.V4, d)
	for name, script := range map[string]string{
		"another priority":  "nft 'flush chain ip loden forward; delete chain ip loden forward; add chain ip loden forward { type filter hook forward priority 5; }'",
		"another policy":    "nft 'add chain ip loden guard-out { policy drop; }'",
		"a rule more":       "nft add rule ip loden guard-in accept",
		"a chain more":      "nft add chain ip loden masq-0123456789",
		"a dormant table":   "nft 'add table ip loden { flags dormant; }'",
		"no rule any more":  "nft flush table ip loden",
		"no table any more": "nft delete table ip loden",
	} {
		shell(t, script)
		s := state(t, o, opt.V4)
		if !slices.ContainsFunc(slices.Collect(places(d)), func(p rule.Place) bool { return !s.Compare(p, d[p]).InSync }) {
			t.Errorf("%s: not seen:\n%s", name, shell(t, "nft list ruleset"))
		}
		s = apply(t, o, opt.V4, d)
		for p := range places(d) {
			if !s.Compare(p, d[p]).InSync {
				t.Errorf("%s: %s is not in sync after the repair", name, p)
			}
		}
	}
}

func places(d Desired) func(func(rule.Place) bool) {
	return func(yield func(rule.Place) bool) {
		for p := range d {
			if !yield(p) {
				return
			}
		}
	}
}

func TestCountersSurviveTheReplacementOfTheGuard(t *testing.T) {
	fresh(t)
	shell(t, "nft 'add table ip loden; add counter ip loden refused-in { packets 7 bytes 700; }'")
	for _, tunnel := range []string{"loden0", "loden9"} {
		apply(t, rule.Owner{}, opt.V4, lists(opt.V4, tunnel))
		c, err := netfilter.Dial()
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if in, out, err := Refused(c, rule.Owner{}, opt.V4); err != nil || in != 7 || out != 0 {
			t.Errorf("%s: refused %d arriving and %d leaving, %v; want 7 and 0", tunnel, in, out, err)
		}
	}
}

func TestOnlyTablesOfTheSameNetworkAreReplaced(t *testing.T) {
	fresh(t)
	apply(t, rule.OwnerOf("wg7"), opt.V4, lists(opt.V4, "wg7"))
	shell(t, "nft add table ip loden-by-hand; nft add table ip lodenx")
	s := state(t, rule.Owner{}, opt.V4)
	if got := s.Replaced(netip.MustParsePrefix("10.244.0.0/16")); !slices.Equal(got, []string{"loden-wg7"}) {
		t.Errorf("for the same network: %q", got)
	}
	if got := s.Replaced(netip.MustParsePrefix("10.99.0.0/16")); len(got) != 0 {
		t.Errorf("for another network: %q", got)
	}
}

func ExampleTool_Apply() {
	for _, c := range slotOf(rule.Forward).chainsOf(opt.V4, rule.ForwardAccept(scopeOf(opt.V4))) {
		for _, r := range c.rules {
			fmt.Printf("%s: %s # %s\n", c.name, r.body, r.comment)
		}
	}
	// Output:
	// fwd-5b6fb9d703: ip saddr 10.244.0.0/16 accept # loden: from the overlay #ba8e44f6
	// fwd-5b6fb9d703: ip daddr 10.244.0.0/16 accept # loden: to the overlay #67b85242
	// forward: jump fwd-5b6fb9d703 # loden forward 10.244.0.0/16 10.244.1.0/24
}
