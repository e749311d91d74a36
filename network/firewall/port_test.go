package firewall_test

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/loden-net/loden/config/opt"
	"github.com/loden-net/loden/network/firewall"
)

// The tests in this file are about chains of other programs that drop handshakes of WireGuard, or packets
// of pods in the tables of a driver that Loden does not use.

// listening is whole with a WireGuard socket at the uplink; the echo of the node plays it.
func listening() firewall.Config {
	c := whole()
	for _, f := range opt.Families() {
		c.Listen = c.Listen.With(f, firewall.Listening{Uplink: "eth0", Address: netip.MustParseAddr(addressesOf(f).uplink), Port: echoPort})
	}
	return c
}

// obstacle is a chain of another program: a script that makes it on the node, a script that removes it,
// and the name of the chain in Problems. X is iptables and ip6tables.
type obstacle struct{ make, remove, object string }

// closed are the ways in which hosts close the port.
func closed() map[string]obstacle {
	zones := `table inet firewalld { chain filter_INPUT { type filter hook input priority filter + 10; policy accept;
		ct state { established, related } accept; ct status dnat accept; iifname "lo" accept; ct state invalid drop; jump zones; reject with icmpx admin-prohibited; };
		chain zones { iifname "eth0" goto public; goto public; };
		chain public { jump allow; meta l4proto { icmp, ipv6-icmp } accept; };
		chain allow { tcp dport 22 accept; ip6 daddr fe80::/64 udp dport 546 accept; udp dport { 53, 5353 } accept; }; }`
	ufw := `X-V -N ufw-before-input; X-V -A ufw-before-input -i lo -j ACCEPT; X-V -A ufw-before-input -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
		X-V -A ufw-before-input -p udp -m udp --sport 67 --dport 68 -j ACCEPT; X-V -A ufw-before-input -p ipv6-icmp -j ACCEPT
		X-V -A INPUT -j ufw-before-input; X-V -P INPUT DROP`
	iptables := "X-V -P INPUT ACCEPT; X-V -F INPUT; X-V -F ufw-before-input || true; X-V -X ufw-before-input || true"
	legacy, nft := strings.NewReplacer("X-V", "X-legacy").Replace, strings.NewReplacer("X-V", "X-nft").Replace
	return map[string]obstacle{
		"firewalld": {"nft '" + zones + "'", "nft delete table inet firewalld", "nft chain inet firewalld filter_INPUT"},
		"a policy": {"nft 'table inet fw { chain in { type filter hook input priority 0; policy drop; ct state established accept; meta l4proto ipv6-icmp accept; tcp dport 22 accept; }; }'",
			"nft delete table inet fw", "nft chain inet fw in"},
		"a chain at prerouting": {"nft 'table inet fw { chain pre { type filter hook prerouting priority -150; iifname eth0 meta l4proto udp drop; }; }'",
			"nft delete table inet fw", "nft chain inet fw pre"},
		"ufw with iptables-nft":    {nft(ufw), nft(iptables), "nft chain ip filter INPUT"},
		"ufw with iptables-legacy": {legacy(ufw), legacy(iptables), "iptables-legacy chain INPUT of table filter"},
		"REJECT at the end, as on Oracle's images": {legacy("X-V -A INPUT -p tcp --dport 22 -j ACCEPT; X-V -A INPUT -m state --state RELATED,ESTABLISHED -j ACCEPT; X-V -A INPUT -p ipv6-icmp -j ACCEPT; X-V -A INPUT -j REJECT"),
			legacy(iptables), "iptables-legacy chain INPUT of table filter"},
	}
}

// families runs a script in which X stands for iptables, with iptables and ip6tables.
func (w world) families(t *testing.T, script string) {
	t.Helper()
	for _, name := range []string{"iptables", "ip6tables"} {
		if strings.Contains(script, "X-") || name == "iptables" {
			on(t, w.node, strings.ReplaceAll(script, "X-", name+"-"))
		}
	}
}

// mend runs the command in a Problem, as an operator would.
func (w world) mend(t *testing.T, p firewall.Problem) {
	t.Helper()
	_, command, ok := strings.Cut(p.Reason, " there: ")
	if !ok {
		t.Fatalf("no command in %q", p.Reason)
	}
	command, _, _ = strings.Cut(command, " (")
	on(t, w.node, command)
}

// objects counts Problems by object.
func objects(found []firewall.Problem) map[string]int {
	n := map[string]int{}
	for _, p := range found {
		n[strings.Replace(strings.Replace(p.Object, "ip6tables", "iptables", 1), "nft chain ip6 ", "nft chain ip ", 1)]++
	}
	return n
}

func TestClosedPortIsAProblemWithTheCommandThatOpensIt(t *testing.T) {
	onEachWorld(t, func(t *testing.T, b bed, w world) {
		echo(t, w.node)
		f := w.install(t, b, listening())
		for name, at := range closed() {
			if found := problems(t, w, f, listening()); len(found) > 0 {
				t.Fatalf("before %s: %v", name, found)
			}
			w.families(t, at.make)
			found := problems(t, w, f, listening())
			if n := objects(found); len(n) != 1 || n[at.object] != 2 {
				t.Fatalf("%s: problems %+v, want one for each family of %q", name, found, at.object)
			}
			for _, f := range opt.Families() {
				if _, err := ask(w.outside, question{to: addressesOf(f).uplink}, true); err == nil {
					t.Errorf("%s: %s: the port is open", name, f)
				}
			}
			for _, p := range found {
				w.mend(t, p)
			}
			if found := problems(t, w, f, listening()); len(found) > 0 {
				t.Errorf("%s: after the commands: %v", name, found)
			}
			for _, f := range opt.Families() {
				must(t, w.outside, question{to: addressesOf(f).uplink})
			}
			w.families(t, at.remove)
		}
	})
}

// TestPortThatMayBeOpenIsNoProblem: a chain that cannot be judged is not reported.
func TestPortThatMayBeOpenIsNoProblem(t *testing.T) {
	fresh(t)
	f, err := firewall.Open(t.Context(), firewall.Options{Backend: "nftables"})
	if err != nil {
		t.Fatal(err)
	}
	silent := func(name string) {
		t.Helper()
		if found, err := f.Problems(t.Context(), listening()); err != nil || len(found) > 0 {
			t.Errorf("%s: %v, %v", name, found, err)
		}
	}
	for _, rule := range []string{
		fmt.Sprintf("udp dport %d accept", echoPort), "udp dport 3000-5000 accept", "udp dport { 53, 3000-5000 } accept", "meta l4proto udp accept", "iifname eth0 accept",
		`iifname "eth*" accept`, "meta nfproto { ipv4, ipv6 } accept", "ct state new accept", "tcp dport 22 drop; udp sport 51820 accept", "limit rate 5/second accept",
		"udp dport vmap { 53 : drop, 4000 : accept }",
	} {
		shell(t, "nft 'add table inet x; add chain inet x in { type filter hook input priority 0; policy drop; }'")
		for r := range strings.SplitSeq(rule, "; ") {
			shell(t, "nft 'add rule inet x in "+r+"'")
		}
		silent(rule)
		shell(t, "nft delete table inet x")
	}
	for _, rule := range []string{
		fmt.Sprintf("-p udp --dport %d -j ACCEPT", echoPort), "-p udp --dport 3000:5000 -j ACCEPT", "-p udp -m multiport --dports 53,4000 -j ACCEPT", "-i eth+ -j ACCEPT",
		"! -i lo -j ACCEPT", "-m conntrack --ctstate NEW -j ACCEPT", "-m limit --limit 5/s -j ACCEPT", "-p udp ! --dport 53 -j ACCEPT", "-m mark --mark 1 -j ACCEPT", "-p udp -j NFQUEUE",
	} {
		for _, tool := range []string{"iptables-legacy", "ip6tables-legacy", "iptables-nft", "ip6tables-nft"} {
			shell(t, tool+" -P INPUT DROP; "+tool+" -A INPUT "+rule)
			silent(tool + " " + rule)
			shell(t, tool+" -P INPUT ACCEPT; "+tool+" -F INPUT")
		}
	}
}

// TestFORWARDOfADriverThatIsNotUsedIsAProblem: each variant of iptables and each table of nf_tables has
// its own verdict, and Loden opens FORWARD of its own driver alone.
func TestFORWARDOfADriverThatIsNotUsedIsAProblem(t *testing.T) {
	onEachWorld(t, func(t *testing.T, b bed, w world) {
		echo(t, w.pod)
		echo(t, w.far)
		f := w.install(t, b, whole())
		for variant, object := range map[string]string{"legacy": "iptables-legacy chain FORWARD of table filter", "nft": "nft chain ip filter FORWARD"} {
			for _, script := range []string{"X-V -A FORWARD -j REJECT", "X-V -P FORWARD DROP", "X-V -N user; X-V -A user -i lo -j RETURN; X-V -A user -j DROP; X-V -A FORWARD -g user"} {
				w.families(t, strings.ReplaceAll(script, "X-V", "X-"+variant))
				found := problems(t, w, f, whole())
				if own := b.backend == "iptables" && b.legacy == (variant == "legacy"); own {
					if len(found) > 0 {
						t.Errorf("%s: %v", script, found)
					}
				} else if n := objects(found); len(n) != 1 || n[object] != 2 {
					t.Fatalf("%s with %s: problems %+v, want one for each family of %q", script, variant, found, object)
				} else if _, err := ask(w.pod, question{to: addressesOf(opt.V4).far}, true); err == nil {
					t.Errorf("%s with %s does not drop", script, variant)
				}
				for _, p := range found {
					w.mend(t, p)
				}
				do(t, w.node, func() error { return makeSo(t.Context(), f, whole()) })
				if found := problems(t, w, f, whole()); len(found) > 0 {
					t.Errorf("%s with %s: after the commands: %v", script, variant, found)
				}
				w.pass(t)
				w.families(t, strings.ReplaceAll("X-V -P FORWARD ACCEPT; X-V -F FORWARD; X-V -F user || true; X-V -X user || true", "X-V", "X-"+variant))
				do(t, w.node, func() error { return makeSo(t.Context(), f, whole()) })
			}
		}
	})
}

// randomRules draws the rules of INPUT and of a chain of its own, each of a form that the judge knows, as
// the input of iptables-restore.
func randomRules() *rapid.Generator[string] {
	draw := rapid.Custom(func(t *rapid.T) string {
		match := rapid.SampledFrom([]string{"", "-i eth0", "! -i eth0", "-i lo", "-i eth+", "-p udp", "-p tcp", "! -p tcp", "-p udp --dport 4000", "-p udp ! --dport 4000", "-p udp --dport 53",
			"-p udp --dport 3999:4001", "-p udp --dport 1:3999", "-p udp --sport 1 --dport 2", "-m conntrack --ctstate NEW", "-m conntrack ! --ctstate NEW",
			"-m conntrack --ctstate RELATED,ESTABLISHED", "-d 192.0.2.0/24", "! -d 192.0.2.1/32", "-d 198.51.100.0/24", "-m comment --comment \"a b -j DROP\""}).Draw(t, "match")
		return match + " -j " + rapid.SampledFrom([]string{"ACCEPT", "DROP", "RETURN", "inner", "MARK --set-mark 1"}).Draw(t, "target")
	})
	return rapid.Custom(func(t *rapid.T) string {
		script := "*mangle\n:inner - [0:0]\n:INPUT " + rapid.SampledFrom([]string{"ACCEPT", "DROP"}).Draw(t, "policy") + " [0:0]\n"
		for _, r := range rapid.SliceOfN(draw, 0, 4).Draw(t, "rules") {
			script += "-A INPUT " + r + "\n"
		}
		for _, r := range rapid.SliceOfN(draw, 0, 3).Draw(t, "inner rules") {
			script += "-A inner " + strings.Replace(r, "-j inner", "-j RETURN", 1) + "\n"
		}
		return script + "COMMIT\n"
	})
}

// TestReportedChainsDropAndOnlyThose compares the judge with the kernel: of chains of random rules,
// exactly those are reported in which a handshake is lost.
func TestReportedChainsDropAndOnlyThose(t *testing.T) {
	w := newWorld(t)
	echo(t, w.node)
	f := w.install(t, bed{backend: "nftables"}, listening())
	for seed := range 30 {
		script := randomRules().Example(seed)
		tool := []string{"iptables-legacy", "iptables-nft"}[seed%2]
		on(t, w.node, tool+"-restore <<'EOF'\n"+script+"EOF")
		reported := len(problems(t, w, f, listening())) > 0
		_, err := ask(w.outside, question{to: addressesOf(opt.V4).uplink}, reported)
		on(t, w.node, tool+"-restore <<'EOF'\n*mangle\n:INPUT ACCEPT [0:0]\nCOMMIT\nEOF")
		if reported != (err != nil) {
			t.Fatalf("%s: reported: %v, the handshake: %v\n%s", tool, reported, err, script)
		}
	}
}
