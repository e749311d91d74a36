package firewall_test

import (
	"errors"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/rs/zerolog"

	"github.com/loden-net/loden/config/opt"
	"github.com/loden-net/loden/network/firewall"
)

func TestSecondComparisonIsEmptyAndDownLeavesTheNamespaceAsFound(t *testing.T) {
	onEach(t, func(t *testing.T, b bed) {
		before := ruleset(t)
		f := b.open(t)
		first := apply(t, f, whole())
		var names []string
		for _, c := range first {
			names = append(names, c.String())
		}
		want := []string{
			"guard: add IPv4 10.244.1.0/24 in 10.244.0.0/16",
			"guard: add IPv6 fd44:0:0:1::/64 in fd44::/48",
			"masq: add IPv4 10.244.1.0/24 in 10.244.0.0/16",
			"masq: add IPv6 fd44:0:0:1::/64 in fd44::/48",
		}
		if !slices.Equal(names, want) {
			t.Errorf("first start:\n%s\nwant:\n%s", strings.Join(names, "\n"), strings.Join(want, "\n"))
		}
		// Another process finds no difference either: the state is in the kernel.
		if changes, err := b.open(t).Changes(t.Context(), whole()); err != nil || len(changes) != 0 {
			t.Errorf("another process would: %v, %v", changes, err)
		}
		apply(t, b.open(t), firewall.Config{})
		after := ruleset(t)
		if b.legacy { // the old packet filter's tables stay, with their policies only
			before, after = withoutPolicies(before), withoutPolicies(after)
		}
		if before != after {
			t.Errorf("left behind:\n%s\nfound:\n%s", after, before)
		}
	})
}

func withoutPolicies(s string) string {
	lines := slices.DeleteFunc(strings.Split(s, "\n"), func(l string) bool { return strings.HasPrefix(l, "-P ") })
	return strings.Join(lines, "\n")
}

func TestForeignRulesStayWhereTheyAre(t *testing.T) {
	onEach(t, func(t *testing.T, b bed) {
		for _, f := range opt.Families() {
			shell(t, strings.ReplaceAll(`
				T -t nat -N KUBE-POSTROUTING
				T -t nat -A POSTROUTING -j KUBE-POSTROUTING
				T -t nat -A POSTROUTING -o docker0 -m comment --comment "some one's" -j MASQUERADE
				T -A FORWARD -i docker0 -j ACCEPT
				T -P FORWARD DROP`, "T ", b.tool(f)+" "))
		}
		shell(t, "nft add table inet theirs; nft add chain inet theirs c '{ type filter hook forward priority 0; }'; nft add rule inet theirs c counter")
		before := ruleset(t)
		f := b.open(t)
		apply(t, f, whole())
		if b.backend == "iptables" {
			rules := b.holds(t, opt.V4)
			kube, own := strings.Index(rules, "-j KUBE-POSTROUTING"), strings.Index(rules, "-j LODEN-POSTRTG")
			if own < kube {
				t.Errorf("our jump comes before kube-proxy's:\n%s", rules)
			}
		}
		apply(t, f, firewall.Config{})
		after := ruleset(t)
		if b.legacy {
			before, after = withoutPolicies(before), withoutPolicies(after)
		}
		if after != before {
			t.Errorf("after down:\n%s\nbefore:\n%s", after, before)
		}
	})
}

func TestSwitchingBackEndCleansUpTheOther(t *testing.T) {
	for _, from := range beds() {
		for _, to := range beds() {
			if from.name == to.name || from.legacy && to.backend == "iptables" {
				continue
			}
			t.Run(from.name+" to "+to.name, func(t *testing.T) {
				fresh(t)
				from.prepare(t)
				apply(t, from.open(t), whole())
				// The host moves to another iptables: its rules are there now.
				if to.legacy {
					shell(t, "for i in $(seq 99); do iptables-legacy -t mangle -A INPUT -j ACCEPT; ip6tables-legacy -t mangle -A INPUT -j ACCEPT; done")
				}
				f := to.open(t)
				changes := apply(t, f, whole())
				last := changes[len(changes)-1].String()
				if !strings.Contains(last, "left in") {
					t.Errorf("the old rules do not go last: %v", changes)
				}
				shown := ruleset(t)
				ours := strings.Count(shown, "LODEN-GUARD-OUT") + strings.Count(shown, "chain guard-out")
				apply(t, f, firewall.Config{})
				if left := ruleset(t); strings.Contains(left, "LODEN") || strings.Contains(left, "loden") {
					t.Errorf("left behind:\n%s", left)
				}
				if ours == 0 {
					t.Errorf("no guard after the switch:\n%s", shown)
				}
			})
		}
	}
}

func TestWorksWithOneToolInstalled(t *testing.T) {
	t.Run("nft alone", func(t *testing.T) {
		fresh(t)
		only(t, "nft")
		f, err := firewall.Open(t.Context(), firewall.Options{Log: zerolog.New(zerolog.NewTestWriter(t))})
		if err != nil || f.Name() != "nftables" {
			t.Fatal(f, err)
		}
		applyQuietly(t, f, whole())
	})
	t.Run("iptables alone", func(t *testing.T) {
		fresh(t)
		only(t, "iptables", "iptables-restore", "ip6tables", "ip6tables-restore")
		f, err := firewall.Open(t.Context(), firewall.Options{Log: zerolog.New(zerolog.NewTestWriter(t))})
		if err != nil || !strings.HasPrefix(f.Name(), "iptables") {
			t.Fatal(f, err)
		}
		applyQuietly(t, f, whole())
	})
	t.Run("nothing", func(t *testing.T) {
		only(t)
		_, err := firewall.Open(t.Context(), firewall.Options{})
		if !errors.Is(err, firewall.ErrNoTools) {
			t.Error(err)
		}
	})
	t.Run("the wrong one", func(t *testing.T) {
		only(t, "nft")
		_, err := firewall.Open(t.Context(), firewall.Options{Backend: "iptables"})
		if err == nil || !strings.Contains(err.Error(), "--firewall nftables") {
			t.Error(err)
		}
	})
	t.Run("no ip6tables where it is needed", func(t *testing.T) {
		fresh(t)
		only(t, "iptables", "iptables-restore")
		f, err := firewall.Open(t.Context(), firewall.Options{Backend: "iptables", Log: zerolog.New(zerolog.NewTestWriter(t))})
		if err != nil {
			t.Fatal(err)
		}
		changes, err := f.Changes(t.Context(), whole())
		if !errors.Is(err, exec.ErrNotFound) || !strings.Contains(err.Error(), "install ip6tables") {
			t.Error(err)
		}
		if len(changes) != 2 {
			t.Errorf("IPv4 waits for IPv6: %v", changes)
		}
	})
}

// applyQuietly is apply for tests that have taken the tools for listing away.
func applyQuietly(t testing.TB, f *firewall.Firewall, want firewall.Config) {
	t.Helper()
	for range 2 {
		changes, err := f.Changes(t.Context(), want)
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range changes {
			if err := c.Run(t.Context()); err != nil {
				t.Fatalf("%v: %v", c, err)
			}
		}
	}
	if changes, err := f.Changes(t.Context(), want); err != nil || len(changes) != 0 {
		t.Fatalf("not done: %v, %v", changes, err)
	}
}
