package firewall_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/loden-net/loden/config/opt"
	"github.com/loden-net/loden/network/firewall"
	"github.com/loden-net/loden/test/sandbox"
)

// The tests in this file are about rules that are present and have no effect.

// rejections are the ways in which hosts end FORWARD, as scripts; T is iptables of the family.
func rejections() map[string]string {
	return map[string]string{
		"REJECT at the end, as on Oracle's images and RHEL": "T -A FORWARD -j REJECT",
		"DROP as policy, as docker sets it":                 "T -P FORWARD DROP",
		"a chain that rejects at its end, as of ufw and firewalld": `T -N reject-forward; T -A reject-forward -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
			T -A reject-forward -j REJECT; T -A FORWARD -j reject-forward`,
		"REJECT of new connections":                      "T -A FORWARD -m state --state NEW -j REJECT",
		"REJECT of every packet that is not from docker": "T -A FORWARD ! -i docker0 -j REJECT",
	}
}

// both runs a script with iptables of both families on a host.
func (b bed) both(t testing.TB, h *sandbox.Host, script string) {
	t.Helper()
	for _, f := range opt.Families() {
		on(t, h, strings.ReplaceAll(script, "T ", b.tool(f)+" "))
	}
}

// pass wants packets between the pod and the remote pod in both families, both ways.
func (w world) pass(t *testing.T) {
	t.Helper()
	for _, f := range opt.Families() {
		must(t, w.pod, question{to: addressesOf(f).far})
		must(t, w.far, question{to: addressesOf(f).pod})
	}
}

func TestForwardedPacketsPassWhereFORWARDRejects(t *testing.T) {
	for name, script := range rejections() {
		t.Run(name, func(t *testing.T) {
			onEachWorld(t, func(t *testing.T, b bed, w world) {
				if b.backend == "nftables" {
					return // an accept in nftables cannot overrule; that is a Problem, below
				}
				echo(t, w.pod)
				echo(t, w.far)
				b.both(t, w.node, script)
				w.install(t, b, whole())
				w.pass(t)
			})
		})
	}
}

// TestRuleInsertedBeforeOursIsSeenAndPassed: the jump is there, and a rule before it decides every
// packet. 84bd38f appended the jump, so an upgrade meets the same.
func TestRuleInsertedBeforeOursIsSeenAndPassed(t *testing.T) {
	onEachWorld(t, func(t *testing.T, b bed, w world) {
		if b.backend == "nftables" {
			return
		}
		echo(t, w.pod)
		echo(t, w.far)
		f := w.install(t, b, whole())
		for name, script := range map[string]string{
			"forward": "T -I FORWARD 1 -j REJECT",
			"guard":   "T -t raw -I PREROUTING 1 -j ACCEPT; T -t mangle -I POSTROUTING 1 -j ACCEPT",
			"masq":    "T -t nat -I POSTROUTING 1 -j ACCEPT",
		} {
			b.both(t, w.node, script)
			do(t, w.node, func() error {
				changes, err := f.Changes(t.Context(), whole())
				if err != nil || len(changes) != 2 || !strings.Contains(changes[0].Object, "another program's rule stood before these rules") {
					return fmt.Errorf("%s: changes %v, %w", name, changes, err)
				}
				return makeSo(t.Context(), f, whole())
			})
			w.pass(t)
		}
		// No rule of another program was removed.
		if rules := on(t, w.node, b.tool(opt.V4)+" -S FORWARD"); strings.Count(rules, "REJECT") != 1 {
			t.Errorf("FORWARD:\n%s", rules)
		}
	})
}

// TestRulesThatSparePodsMayStandBeforeOurs: only a rule that decides every packet of the pods is passed.
// Other programs keep their first place, or both would move their jumps for ever.
func TestRulesThatSparePodsMayStandBeforeOurs(t *testing.T) {
	onEach(t, func(t *testing.T, b bed) {
		if b.backend == "nftables" {
			return
		}
		f := b.open(t)
		apply(t, f, whole())
		for _, rule := range []string{
			"-I FORWARD 1 -s 192.0.2.0/24 -j DROP", "-I FORWARD 1 -i eth0 -j DROP", "-I FORWARD 1 -m conntrack --ctstate INVALID -j DROP",
			"-I FORWARD 1 -p icmp -j REJECT", "-N KUBE-FORWARD", "-A KUBE-FORWARD -m mark --mark 0x4000/0x4000 -j ACCEPT", "-I FORWARD 1 -j KUBE-FORWARD",
			"-I FORWARD 1 -j ACCEPT", "-N DOCKER-USER", "-A DOCKER-USER -j RETURN", "-A DOCKER-USER -j DROP", "-I FORWARD 1 -j DOCKER-USER",
			"-t nat -I POSTROUTING 1 -o eth0 -j MASQUERADE", "-t raw -I PREROUTING 1 -i docker0 -j ACCEPT",
		} {
			shell(t, b.tool(opt.V4)+" "+rule)
			if changes, err := f.Changes(t.Context(), whole()); err != nil || len(changes) > 0 {
				t.Errorf("%s: would %v, %v", rule, changes, err)
			}
		}
	})
}

// foreign are base chains of other programs that drop packets of pods, as nft scripts.
func foreign() map[string]string {
	return map[string]string{
		"inet firewalld filter_FORWARD": `table inet firewalld { chain filter_FORWARD { type filter hook forward priority filter + 10; policy accept;
			ct state { established, related } accept; ct status dnat accept; iifname "lo" accept; ct state { invalid } drop
			jump policies; reject with icmpx admin-prohibited; };
			chain policies { iifname "eth0" oifname "eth0" accept; }; }`,
		"inet fw f": `table inet fw { chain f { type filter hook forward priority 0; policy drop; ct state established,related accept; iifname "loden0" ct state vmap { established : accept, new : jump g }; iifname "eth0" accept; };
			chain g { limit rate 1/second log; return; }; }`,
	}
}

func TestForeignChainThatDropsIsAProblemWithTheCommandThatMendsIt(t *testing.T) {
	for chain, script := range foreign() {
		t.Run(chain, func(t *testing.T) {
			onEachWorld(t, func(t *testing.T, b bed, w world) {
				echo(t, w.pod)
				echo(t, w.far)
				f := w.install(t, b, whole())
				if found := problems(t, w, f, whole()); len(found) > 0 {
					t.Fatalf("before: %v", found)
				}
				on(t, w.node, "nft -f - <<'EOF'\n"+script+"\nEOF")
				found := problems(t, w, f, whole())
				if len(found) != 2 || found[0].Object != "nft chain "+chain {
					t.Fatalf("problems %+v, want one for each family of %s", found, chain)
				}
				if _, err := ask(w.pod, question{to: addressesOf(opt.V4).far}, true); err == nil {
					t.Error("the chain does not drop")
				}
				for _, p := range found {
					_, command, _ := strings.Cut(p.Reason, "accept the pods' packets there: ")
					command, _, _ = strings.Cut(command, " (")
					on(t, w.node, command)
				}
				if found := problems(t, w, f, whole()); len(found) > 0 {
					t.Errorf("after the command: %v", found)
				}
				w.pass(t)
			})
		})
	}
}

func problems(t *testing.T, w world, f *firewall.Firewall, c firewall.Config) (found []firewall.Problem) {
	t.Helper()
	do(t, w.node, func() (err error) {
		found, err = f.Problems(t.Context(), c)
		return err
	})
	return found
}

// TestChainsThatMayLetPodsPassAreNoProblem: a chain that cannot be judged is not reported.
func TestChainsThatMayLetPodsPassAreNoProblem(t *testing.T) {
	fresh(t)
	f, err := firewall.Open(t.Context(), firewall.Options{Backend: "nftables"})
	if err != nil {
		t.Fatal(err)
	}
	for name, rules := range map[string]string{
		"accepts the overlay":           "ip saddr 10.0.0.0/8 accept; ip6 saddr fd00::/8 accept",
		"accepts the pods' bridge":      `iifname "cni0" accept; oifname "cni0" accept`,
		"accepts a mark":                "meta mark & 0x10000 != 0 accept",
		"accepts members of a set":      "ip daddr @pods accept; ip6 saddr ::/0 accept",
		"accepts TCP":                   "meta l4proto tcp accept",
		"jumps to a chain that accepts": "jump inner",
	} {
		shell(t, "nft 'add table inet x; add set inet x pods { type ipv4_addr; flags interval; }; add chain inet x inner; add rule inet x inner accept; add chain inet x f { type filter hook forward priority 0; policy drop; }'")
		for r := range strings.SplitSeq(rules, "; ") {
			shell(t, "nft 'add rule inet x f "+r+"'")
		}
		if found, err := f.Problems(t.Context(), whole()); err != nil || len(found) > 0 {
			t.Errorf("%s: %v, %v", name, found, err)
		}
		shell(t, "nft flush chain inet x f")
		if found, err := f.Problems(t.Context(), whole()); err != nil || len(found) != 2 {
			t.Errorf("%s, without the rules: %v, %v", name, found, err)
		}
		shell(t, "nft delete table inet x")
	}
	// A table that is switched off, another hook, and a node without pods.
	shell(t, "nft 'add table inet x { flags dormant; }; add chain inet x f { type filter hook forward priority 0; policy drop; }; add table inet y; add chain inet y i { type filter hook input priority 0; policy drop; }'")
	if found, err := f.Problems(t.Context(), whole()); err != nil || len(found) > 0 {
		t.Errorf("a dormant table and another hook: %v, %v", found, err)
	}
}

// TestTwoDaemonsOnOneHostLeaveEachOthersRulesAlone: each has a network and an interface of its own.
func TestTwoDaemonsOnOneHostLeaveEachOthersRulesAlone(t *testing.T) {
	second := policy().Config("loden1", opt.Dual[firewall.Scope]{
		V4: opt.Some(scope("10.99.0.0/16", "10.99.1.0/24")), V6: opt.Some(scope("fd99::/48", "fd99:0:0:1::/64")),
	})
	onEach(t, func(t *testing.T, b bed) {
		a, other := b.openAs(t, "loden0"), b.openAs(t, "loden1")
		apply(t, a, whole())
		alone := ruleset(t)
		apply(t, other, second)
		for range 3 {
			for name, at := range map[string]struct {
				f    *firewall.Firewall
				want firewall.Config
			}{"first": {a, whole()}, "second": {other, second}, "first again": {b.openAs(t, "loden0"), whole()}} {
				if changes, err := at.f.Changes(t.Context(), at.want); err != nil || len(changes) > 0 {
					t.Fatalf("the %s daemon would %v, %v", name, changes, err)
				}
			}
		}
		apply(t, other, firewall.Config{})
		if got := ruleset(t); sorted(got) != sorted(alone) {
			t.Errorf("after the second daemon's down:\n%s\nbefore it came:\n%s", got, alone)
		}
	})
}

// TestRulesOfTheSameNetworkUnderAnotherNameAreReplaced: 84bd38f gave the rules of every interface the
// same names, and an operator may rename the interface.
func TestRulesOfTheSameNetworkUnderAnotherNameAreReplaced(t *testing.T) {
	onEach(t, func(t *testing.T, b bed) {
		want := policy().Config("wg7", scopes())
		apply(t, b.openAs(t, "wg7"), want)
		clean := ruleset(t)
		apply(t, b.openAs(t, "wg7"), firewall.Config{})
		apply(t, b.openAs(t, "loden0"), want) // as 84bd38f run with --interface wg7
		apply(t, b.openAs(t, "wg7"), want)
		if got := ruleset(t); sorted(got) != sorted(clean) {
			t.Errorf("got:\n%s\nwant:\n%s", got, clean)
		}
	})
}

// TestGuardCountersKeepTheirSumWhenRulesAreReplaced: operators and metrics read a sum that never falls.
func TestGuardCountersKeepTheirSumWhenRulesAreReplaced(t *testing.T) {
	onEachWorld(t, func(t *testing.T, b bed, w world) {
		echo(t, w.pod)
		c := whole()
		fw := w.install(t, b, c)
		for _, f := range opt.Families() {
			refused(t, w, fw, c, "outside to pod", w.outside, question{to: addressesOf(f).pod}, f, false)
		}
		before := map[opt.Family]uint64{}
		for _, f := range opt.Families() {
			before[f] = count(t, w, fw, c, f, false)
		}
		next := policy().Config("loden9", scopes())
		do(t, w.node, func() error { return makeSo(t.Context(), fw, next) })
		for _, f := range opt.Families() {
			if now := count(t, w, fw, next, f, false); before[f] == 0 || now < before[f] {
				t.Errorf("%s: %d packets counted before the replacement, %d after it", f, before[f], now)
			}
		}
		// Another process reads the sum from the kernel; ip6tables-nft (1.8.9) cannot keep it there.
		another := w.install(t, b, next)
		if now := count(t, w, another, next, opt.V4, false); now < before[opt.V4] {
			t.Errorf("another process counts %d packets, before the replacement there were %d", now, before[opt.V4])
		}
	})
}
