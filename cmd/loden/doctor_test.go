package main

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/loden-net/loden/network/node"
	"github.com/loden-net/loden/test/sandbox/linediff"
)

func TestDiagnosisBeginsWithTheVerdictAndTheFaults(t *testing.T) {
	d := node.Diagnosis{Node: "alpha", Findings: []node.Finding{
		{What: "uplink", State: node.Good, Detail: "IPv4 192.0.2.11 on eth0 (MTU 1500)"},
		{What: "clock", State: node.Warn, Detail: "the clock of beta is 2h0m0s ahead of this node's", Remedy: "timedatectl"},
		{What: "pod bridge", State: node.Bad, Detail: "cni0 lacks its IPv6 gateway address fd44:0:0:1::1/64, so its 2 pods have no IPv6", Remedy: "ip -6 addr add fd44:0:0:1::1/64 dev cni0"},
	}}
	for i := range 12 {
		d.Findings = append(d.Findings, node.Finding{What: fmt.Sprintf("peer n%02d", i), State: node.Good, Detail: "up"})
	}
	var b strings.Builder
	if err := printDiagnosis(&b, d, false, "x.tar.gz"); err != nil {
		t.Fatal(err)
	}
	want := `alpha  1 fault, 1 warning
✗ pod bridge: cni0 lacks its IPv6 gateway address fd44:0:0:1::1/64, so its 2
    pods have no IPv6
  → ip -6 addr add fd44:0:0:1::1/64 dev cni0
! clock: the clock of beta is 2h0m0s ahead of this node's
  → timedatectl
✓ uplink: IPv4 192.0.2.11 on eth0 (MTU 1500)
✓ peer n00: up
✓ peer n01: up
✓ peer n02: up
✓ peer n03: up
✓ peer n04: up
✓ peer n05: up
✓ peer n06: up
✓ peer n07: up
✓ peer n08: up
✓ peer n09: up
✓ and 2 more peers without a fault (--all lists them)

written: x.tar.gz; look through it before you send it
`
	if diff := linediff.Of(want, b.String()); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

func TestExplanationEndsWithTheVerdictAndTheRemedy(t *testing.T) {
	x := node.Explanation{
		From: node.End{Node: "alpha", Address: netip.MustParseAddr("10.244.1.2"), Pod: true},
		To:   node.End{Node: "beta", Address: netip.MustParseAddr("10.244.2.0")},
		Hops: []node.Hop{
			{Node: "alpha", Finding: node.Finding{What: "forwarding", State: node.Good, Detail: "on for the families of the overlay"}},
			{Node: "alpha", Finding: node.Finding{What: "route to the tunnel", State: node.Bad, Detail: "the route 10.244.2.0/24 dev eth1 wins"}},
			{Node: "beta", Finding: node.Finding{What: "lease", State: node.Good, Detail: "alpha holds 10.244.1.0/24"}},
		},
		Broken: true, Verdict: "10.244.1.2 → 10.244.2.0 is broken at route to the tunnel on alpha", Remedy: "ip route del 10.244.2.0/24 dev eth1",
	}
	var b strings.Builder
	if err := printExplanation(&b, x); err != nil {
		t.Fatal(err)
	}
	want := `pod 10.244.1.2 on alpha → node beta (10.244.2.0)
alpha
  ✓ forwarding: on for the families of the overlay
  ✗ route to the tunnel: the route 10.244.2.0/24 dev eth1 wins
beta
  ✓ lease: alpha holds 10.244.1.0/24

10.244.1.2 → 10.244.2.0 is broken at route to the tunnel on alpha
→ ip route del 10.244.2.0/24 dev eth1
`
	if diff := linediff.Of(want, b.String()); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

func TestLinesFitTheWidthUnlessAWordIsLonger(t *testing.T) {
	text := strings.Repeat("an address of a pod, ", 20)
	for _, width := range []int{40, 80, 120} {
		for _, line := range strings.Split(wrap(text, width, 4), "\n") {
			if len(line) > width {
				t.Errorf("width %d: %q", width, line)
			}
		}
	}
	if got := wrap("a "+strings.Repeat("x", 90)+" b", 80, 2); strings.Count(got, "\n") != 2 {
		t.Errorf("a long word: %q", got)
	}
}
