package firewall_test

import (
	"context"
	"net/netip"
	"os/exec"
	"testing"

	"github.com/rs/zerolog"

	"github.com/loden-net/loden/config/diff"
	"github.com/loden-net/loden/config/opt"
	"github.com/loden-net/loden/network/firewall"
	"github.com/loden-net/loden/network/firewall/rule"
	"github.com/loden-net/loden/network/sandbox/sandboxtest"
)

func TestMain(m *testing.M) { sandboxtest.Main(m) }

func scope(network, subnet string) firewall.Scope {
	return firewall.Scope{Network: netip.MustParsePrefix(network), Subnet: netip.MustParsePrefix(subnet)}
}

// dual is a whole configuration of both families.
func dual() firewall.Config {
	v4, v6 := scope("10.244.0.0/16", "10.244.1.0/24"), scope("fd44::/48", "fd44:0:0:1::/64")
	scopes := opt.Dual[firewall.Scope]{V4: opt.Some(v4), V6: opt.Some(v6)}
	return firewall.Config{
		Masq: opt.Map(scopes, func(_ opt.Family, s firewall.Scope) firewall.Masquerading {
			return firewall.Masquerading{Scope: s, RandomFully: true, Mark: rule.KubeProxyMark()}
		}),
		Forward: scopes,
		Guard:   firewall.Guard{Mode: firewall.Enforce, Scopes: scopes, Tunnel: "loden0", Uplinks: rule.NewNames("eth0")},
	}
}

func open(t testing.TB, backend string) *firewall.Firewall {
	t.Helper()
	f, err := firewall.Open(t.Context(), firewall.Options{Backend: backend, Log: zerolog.New(zerolog.NewTestWriter(t))})
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// apply runs the changes to want and checks that nothing is left to do.
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
		t.Fatalf("a second comparison: %v, %v\n%s", again, err, ruleset(t))
	}
	return changes
}

func ruleset(t testing.TB) string {
	t.Helper()
	out, err := exec.CommandContext(context.Background(), "sh", "-c", "nft list ruleset; iptables-legacy-save; ip6tables-legacy-save").CombinedOutput()
	if err != nil {
		t.Fatal(err, string(out))
	}
	return string(out)
}

func TestSecondComparisonIsEmpty(t *testing.T) {
	f := open(t, "iptables")
	for _, c := range apply(t, f, dual()) {
		t.Log(c)
	}
	t.Log(ruleset(t))
	for _, c := range apply(t, f, firewall.Config{}) {
		t.Log(c)
	}
	t.Log(ruleset(t))
}
