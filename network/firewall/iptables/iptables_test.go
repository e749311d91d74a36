package iptables

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"go.uber.org/goleak"
	"pgregory.net/rapid"

	"github.com/loden-net/loden/config/opt"
	"github.com/loden-net/loden/network/firewall/rule"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// anyRule draws a rule of the forms that we write.
func anyRule(t *rapid.T) rule.Rule {
	network := func(name string) rule.Net {
		p := netip.MustParsePrefix(rapid.SampledFrom([]string{"10.0.0.0/8", "10.1.2.0/24", "192.0.2.1/32", "fd44::/48"}).Draw(t, name))
		return rapid.SampledFrom([]rule.Net{{}, rule.In(p), rule.NotIn(p)}).Draw(t, name)
	}
	r := rule.Rule{
		InIface:    rapid.SampledFrom([]string{"", "eth0"}).Draw(t, "in"),
		OutIface:   rapid.SampledFrom([]string{"", "loden0"}).Draw(t, "out"),
		Src:        network("src"),
		Dst:        network("dst"),
		Translated: rapid.Bool().Draw(t, "translated"),
		Verdict:    rapid.SampledFrom([]rule.Verdict{rule.Return, rule.Accept, rule.Masquerade, rule.MasqueradeRandom, rule.Drop, rule.Goto}).Draw(t, "verdict"),
		Comment:    rapid.SampledFrom([]string{"loden: why", "one", `say "so"`, `back\slash`}).Draw(t, "why"),
	}
	if rapid.Bool().Draw(t, "marked") {
		r.Mark = rule.Mark{Value: 0x4000, Mask: rapid.SampledFrom([]uint32{0x4000, 0xffffffff}).Draw(t, "mask")}
	}
	if r.Verdict == rule.Goto {
		r.Chain = "LODEN-X"
	}
	return r
}

func TestRuleIsReadAsItWasWritten(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := anyRule(t)
		got := parseTable([]string{"-A C " + render(want)})["C"]
		if len(got) != 1 || !got[0].known || got[0].rule != want {
			t.Fatalf("wrote %s\nread %+v\nwant %+v", render(want), got, want)
		}
		// A listed rule may be given back for deletion.
		again := parseTable([]string{"-A C " + got[0].text})["C"]
		if len(again) != 1 || again[0].rule != want {
			t.Fatalf("%s became %s", render(want), got[0].text)
		}
	})
}

func TestForeignFormsAreNotTakenForOurs(t *testing.T) {
	for _, text := range []string{
		"-s 10.0.0.0/8 -p tcp -j RETURN", "-m addrtype --dst-type LOCAL -j RETURN", "! -i eth0 -j DROP",
		"-m conntrack --ctstate NEW -j RETURN", "-j MASQUERADE --to-ports 1024", "-m comment --comment x", "-s nonsense -j DROP", "-j LOG",
	} {
		if l := parseTable([]string{"-A C " + text})["C"][0]; l.known {
			t.Errorf("%s: taken for %+v", text, l.rule)
		}
	}
}

// FuzzParseTable feeds listings of other programs, versions and people.
func FuzzParseTable(f *testing.F) {
	f.Add("-P POSTROUTING ACCEPT -c 0 0\n-N LODEN-POSTRTG\n-A POSTROUTING -m comment --comment \"loden postrouting\" -c 1 60 -j LODEN-POSTRTG")
	f.Add("-A X -s 10.0.0.0/8 ! -d 224.0.0.0/4 -m comment --comment \"a \\\"b\\\"\" -j MASQUERADE --random-fully")
	f.Add("-A\n-N\n-A X -c\n-A X -m\n-A X ! ")
	f.Fuzz(func(t *testing.T, listing string) {
		parsed := parseTable(strings.Split(listing, "\n"))
		s := Snapshot{TakeOver: true, tables: map[string]table{"nat": parsed}}
		want := opt.Some(rule.Postroute(rule.Masquerading{Scope: rule.Scope{
			Network: netip.MustParsePrefix("10.0.0.0/8"), Subnet: netip.MustParsePrefix("10.1.0.0/16"),
		}}))
		input := s.Edit(rule.Postrouting, want)
		if lines := strings.Split(strings.TrimSuffix(input, "\n"), "\n"); input != "" && (lines[0] != "*nat" || lines[len(lines)-1] != "COMMIT") {
			t.Errorf("%q", input)
		}
	})
}

func TestR8WaitIsAskedOnlyOfRestoresThatKnowIt(t *testing.T) {
	for version, want := range map[[3]int]bool{
		{1, 4, 21}: false, {1, 6, 0}: false, {1, 6, 1}: false, {1, 6, 2}: true, {1, 8, 9}: true, {2, 0, 0}: true,
	} {
		if got := waitArgs(version[0], version[1], version[2]); (got != nil) != want || slices.Contains(got, "") {
			t.Errorf("%v: %q, want any: %v", version, got, want)
		}
	}
}

func TestR4NoArgumentIsEmpty(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := anyRule(t)
		r.Comment = "loden: why"
		text := render(r)
		if strings.Contains(text, "  ") || strings.HasSuffix(text, " ") || strings.Contains(text, `""`) {
			t.Fatalf("%q", text)
		}
	})
}

func ExampleSnapshot_Edit() {
	scope := rule.Scope{Network: netip.MustParsePrefix("10.244.0.0/16"), Subnet: netip.MustParsePrefix("10.244.1.0/24")}
	fmt.Print(Snapshot{}.Edit(rule.Forward, opt.Some(rule.ForwardAccept(scope))))
	// Output:
	// *filter
	// :LODEN-FWD-5b6fb9d703 - [0:0]
	// :LODEN-FORWARD - [0:0]
	// -A LODEN-FWD-5b6fb9d703 -s 10.244.0.0/16 -m comment --comment "loden: from the overlay" -j ACCEPT
	// -A LODEN-FWD-5b6fb9d703 -d 10.244.0.0/16 -m comment --comment "loden: to the overlay" -j ACCEPT
	// -A LODEN-FORWARD -m comment --comment "loden forward 10.244.0.0/16 10.244.1.0/24" -j LODEN-FWD-5b6fb9d703
	// -I FORWARD 1 -m comment --comment "loden forward" -j LODEN-FORWARD
	// COMMIT
}
