package firewall_test

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/rs/zerolog"

	"github.com/loden-net/loden/config/opt"
	"github.com/loden-net/loden/config/set"
	"github.com/loden-net/loden/network/firewall"
)

// The tests in this file are named after bugs that were found in flannel; each fails when
// the code that prevents the bug is taken away.

func TestR1FirstStartWithIPv6AndNoRulesBefore(t *testing.T) {
	onEach(t, func(t *testing.T, b bed) {
		for _, c := range apply(t, b.open(t), whole()) {
			if c.Verb != "add" {
				t.Errorf("the first start makes %v", c)
			}
		}
	})
}

func TestR1GarbledPreviousScopeIsReplaced(t *testing.T) {
	for _, garbled := range []string{"loden postrouting", "loden postrouting fd44::/48", "loden postrouting ::/0 x", "loden postrouting fd44::/48 10.0.0.0/8", "\\\" '"} {
		onEach(t, func(t *testing.T, b bed) {
			if b.backend == "nftables" {
				if strings.Contains(garbled, `"`) {
					garbled = "'"
				}
				shell(t, fmt.Sprintf(`nft 'add table ip6 loden; add chain ip6 loden masq-0000000000; add chain ip6 loden postrouting { type nat hook postrouting priority 105; }; add rule ip6 loden postrouting jump masq-0000000000 comment "%s"'`, strings.ReplaceAll(garbled, "'", "")))
			} else {
				shell(t, strings.ReplaceAll(fmt.Sprintf(`
					T -t nat -N LODEN-MASQ-0000000000; T -t nat -N LODEN-POSTRTG; T -t nat -A POSTROUTING -j LODEN-POSTRTG
					T -t nat -A LODEN-POSTRTG -m comment --comment "%s" -j LODEN-MASQ-0000000000`, garbled), "T ", b.tool(opt.V6)+" "))
			}
			f := b.open(t)
			for _, c := range apply(t, f, whole()) {
				if c.Verb != "add" {
					t.Errorf("%q was read as a scope: %v", garbled, c)
				}
			}
			if shown := ruleset(t); strings.Contains(shown, "0000000000") {
				t.Errorf("%q: the old chain stays:\n%s", garbled, shown)
			}
		})
	}
}

func TestR2IPv6SwitchedOffAfterDualStack(t *testing.T) {
	onEach(t, func(t *testing.T, b bed) {
		f := b.open(t)
		apply(t, f, whole())
		changes := apply(t, f, policy().Config("loden0", scopes().Without(opt.V6)))
		if len(changes) != 2 || changes[0].Verb != "delete" || changes[1].Verb != "delete" {
			t.Errorf("changes: %v", changes)
		}
		if rules := b.holds(t, opt.V6); strings.Contains(rules, "fd44") {
			t.Errorf("old rules stay:\n%s", rules)
		}
	})
}

func TestR3NodeWithoutIPv6StartsNoIP6Tables(t *testing.T) {
	fresh(t)
	dir := only(t, "iptables", "iptables-restore", "ip6tables", "ip6tables-restore", "nft")
	f, err := firewall.Open(t.Context(), firewall.Options{Backend: "iptables", Log: zerolog.New(zerolog.NewTestWriter(t))})
	if err != nil {
		t.Fatal(err)
	}
	applyQuietly(t, f, policy().Config("loden0", scopes().Without(opt.V6)))
	applyQuietly(t, f, firewall.Config{})
	got := calls(t, dir)
	if len(got) == 0 || slices.ContainsFunc(got, func(s string) bool { return strings.HasPrefix(s, "ip6tables") }) {
		t.Errorf("started:\n%s", strings.Join(got, "\n"))
	}
}

func TestR3ZeroPrefixIsRefusedAndMakesNoRules(t *testing.T) {
	onEach(t, func(t *testing.T, b bed) {
		broken := whole()
		broken.Masq = broken.Masq.With(opt.V6, firewall.Masquerading{})
		changes, err := b.open(t).Changes(t.Context(), broken)
		if err == nil {
			t.Error("no error")
		}
		for _, c := range changes {
			if strings.Contains(c.Object, "IPv6") {
				t.Errorf("would %v", c)
			}
		}
	})
}

func TestR4ToolsWithoutRandomFullySettle(t *testing.T) {
	fresh(t)
	shell(t, "iptables-legacy -t mangle -A INPUT -j ACCEPT")
	masquerades := func() string { return shell(t, "iptables-legacy -t nat -S | grep MASQUERADE") }
	path := os.Getenv("PATH")
	legacyFirst(t)
	oldTools(t, "1.6.1")
	f, err := firewall.Open(t.Context(), firewall.Options{Backend: "iptables", Log: zerolog.New(zerolog.NewTestWriter(t))})
	if err != nil {
		t.Fatal(err)
	}
	applyQuietly(t, f, policy().Config("loden0", scopes().Without(opt.V6)))
	t.Setenv("PATH", path)
	if got := masquerades(); strings.Contains(got, "random") || strings.Count(got, "\n") != 2 {
		t.Errorf("rules:\n%s", got)
	}
}

func TestR5R6RulesStandInFlannelsOrderWithTheMarkFirst(t *testing.T) {
	want := []string{
		"-m mark --mark 0x4000/0x4000 -j RETURN",
		"-s 10.244.1.0/24 -d 10.244.0.0/16 -j RETURN",
		"-s 10.244.0.0/16 -d 10.244.1.0/24 -j RETURN",
		"! -s 10.244.0.0/16 -d 10.244.1.0/24 -j RETURN",
		"-s 10.244.0.0/16 ! -d 224.0.0.0/4 -j MASQUERADE --random-fully",
		"! -s 10.244.0.0/16 -d 10.244.0.0/16 -j MASQUERADE --random-fully",
	}
	onEach(t, func(t *testing.T, b bed) {
		if b.backend != "iptables" {
			return // the rules of nftables are compared packet by packet elsewhere
		}
		apply(t, b.open(t), whole())
		got := strings.Split(strings.TrimSpace(shell(t, b.tool(opt.V4)+` -t nat -S | grep -e '-A LODEN-MASQ' | sed 's/-A LODEN-MASQ-[0-9a-f]* //; s/-m comment --comment "[^"]*" //'`)), "\n")
		if !slices.Equal(got, want) {
			t.Errorf("got:\n%s\nwant:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
	})
}

func TestR7ChainDeletedByOthersIsMadeAgainInOnePass(t *testing.T) {
	onEach(t, func(t *testing.T, b bed) {
		f := b.open(t)
		apply(t, f, whole())
		want := ruleset(t)
		if b.backend == "nftables" {
			shell(t, "nft flush ruleset")
		} else {
			for _, family := range opt.Families() {
				for _, table := range []string{"nat", "filter", "raw", "mangle"} {
					shell(t, fmt.Sprintf("%[1]s -t %[2]s -F; %[1]s -t %[2]s -X", b.tool(family), table))
				}
			}
			b.prepare(t)
		}
		if b.legacy { // the flush took the host's own rule as well; prepare put it back
			apply(t, f, whole())
			return
		}
		apply(t, f, whole())
		if b.backend == "nftables" {
			if got := ruleset(t); got != want {
				t.Errorf("got:\n%s\nwant:\n%s", got, want)
			}
		}
	})
}

func TestR8OldRestoreIsNotAskedToWait(t *testing.T) {
	fresh(t)
	shell(t, "iptables-legacy -t mangle -A INPUT -j ACCEPT")
	legacyFirst(t)
	dir := oldTools(t, "1.6.1")
	f, err := firewall.Open(t.Context(), firewall.Options{Backend: "iptables", Log: zerolog.New(zerolog.NewTestWriter(t))})
	if err != nil {
		t.Fatal(err)
	}
	applyQuietly(t, f, policy().Config("loden0", scopes().Without(opt.V6)))
	if !slices.ContainsFunc(calls(t, dir), func(s string) bool { return strings.HasPrefix(s, "iptables-restore --noflush") }) {
		t.Errorf("started:\n%s", strings.Join(calls(t, dir), "\n"))
	}
}

func TestR9RulesOutliveTheDaemonAndGoOnlyWhenAsked(t *testing.T) {
	onEach(t, func(t *testing.T, b bed) {
		ctx, stop := context.WithCancel(t.Context())
		f := b.open(t)
		watched := make(chan error, 1)
		go func() { watched <- f.Watch(ctx, func() {}) }()
		apply(t, f, whole())
		before := ruleset(t)
		stop() // as SIGTERM does
		if err := <-watched; err != nil {
			t.Error(err)
		}
		if after := ruleset(t); after != before {
			t.Errorf("after the end:\n%s", after)
		}
		apply(t, b.open(t), firewall.Config{})
		if left := ruleset(t); strings.Contains(left, "LODEN") || strings.Contains(left, "loden") {
			t.Errorf("left behind:\n%s", left)
		}
	})
}

func TestR10FailedTeardownIsReportedAndTriedAgain(t *testing.T) {
	fresh(t)
	dir := brokenTool(t, "iptables-restore", "echo no such luck >&2; exit 2")
	f, err := firewall.Open(t.Context(), firewall.Options{Backend: "iptables", Log: zerolog.New(zerolog.NewTestWriter(t))})
	if err != nil {
		t.Fatal(err)
	}
	v4 := policy().Config("loden0", scopes().Without(opt.V6))
	applyQuietly(t, f, v4)
	broken := filepath.Join(dir, "broken")
	if err := os.WriteFile(broken, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	changes, err := f.Changes(t.Context(), firewall.Config{})
	if err != nil || len(changes) != 2 {
		t.Fatal(changes, err)
	}
	for _, c := range changes {
		if err := c.Run(t.Context()); err == nil || !strings.Contains(err.Error(), "no such luck") {
			t.Errorf("%v: %v", c, err)
		}
	}
	if err := os.Remove(broken); err != nil {
		t.Fatal(err)
	}
	applyQuietly(t, f, firewall.Config{})
}

func TestR11ExitStatusOneIsAnErrorNotAMissingRule(t *testing.T) {
	fresh(t)
	dir := brokenTool(t, "iptables", "exit 1")
	f, err := firewall.Open(t.Context(), firewall.Options{Backend: "iptables", Log: zerolog.New(zerolog.NewTestWriter(t))})
	if err != nil {
		t.Fatal(err)
	}
	v4 := policy().Config("loden0", scopes().Without(opt.V6))
	applyQuietly(t, f, v4)
	v4.Masq = v4.Masq.With(opt.V4, firewall.Masquerading{Scope: scope("10.244.0.0/16", "10.244.9.0/24")})
	if err := os.WriteFile(filepath.Join(dir, "broken"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if changes, err := f.Changes(t.Context(), v4); err == nil || len(changes) != 0 {
		t.Errorf("the list failed, yet: %v, %v", changes, err)
	}
}

func TestR14OlderRuleSetIsReplacedByExactlyOurs(t *testing.T) {
	onEach(t, func(t *testing.T, b bed) {
		f := b.open(t)
		apply(t, f, whole())
		want := ruleset(t)
		apply(t, f, firewall.Config{})
		// An older version: without the mark, other names, other exclusions.
		older := whole()
		for family, m := range older.Masq.All() {
			m.Mark = firewall.Mark{}
			m.Exclude = set.NewPrefixes(netip.MustParsePrefix("192.0.2.0/24"), netip.MustParsePrefix("2001:db8::/32"))
			older.Masq = older.Masq.With(family, m)
		}
		apply(t, f, older)
		for _, c := range apply(t, b.open(t), whole()) {
			if c.Verb != "replace" {
				t.Errorf("%v", c)
			}
		}
		if got := ruleset(t); sorted(got) != sorted(want) {
			t.Errorf("got:\n%s\nwant:\n%s", got, want)
		}
	})
}

// sorted orders lines: chains are listed in the order of their making.
func sorted(s string) string {
	lines := strings.Split(s, "\n")
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}
