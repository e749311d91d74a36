package main

import (
	"encoding/json"
	"net"
	"net/http"
	"net/netip"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/loden-net/loden/config/opt"
	"github.com/loden-net/loden/network/node"
	"github.com/loden-net/loden/subnet"
	"github.com/loden-net/loden/test/sandbox/linediff"
)

// sample is a node with a connected peer, a peer without a handshake, and a problem.
func sample(now time.Time) node.Report {
	prefix := func(v4, v6 string) opt.Dual[netip.Prefix] {
		return opt.Dual[netip.Prefix]{V4: opt.Some(netip.MustParsePrefix(v4)), V6: opt.Some(netip.MustParsePrefix(v6))}
	}
	return node.Report{
		Version: "v1", Node: "a", Ready: true, Interface: "loden0", PublicKey: "KEY", Port: 51820, MTU: 1420,
		Engine:    node.EngineReport{Kind: "loden", Reason: "the kernel has no WireGuard", Replaced: 1, Drops: map[string]uint64{"no-peer": 7, "replay": 0}},
		Firewall:  node.FirewallReport{Kind: "iptables (nft)", Reason: "iptables is installed", Guard: "enforce", Clear: []node.GuardCounter{{Family: "ipv4", Direction: "out", Packets: 3}, {Family: "ipv6", Direction: "in"}}},
		Store:     node.StoreReport{Up: false, Since: now.Add(-time.Minute), Error: "etcd is not available", Revision: 7, Held: []string{"z"}},
		Networks:  prefix("10.244.0.0/16", "fd44::/48"),
		Subnets:   prefix("10.244.1.0/24", "fd44:0:0:1::/64"),
		Endpoints: opt.Dual[netip.AddrPort]{V4: opt.Some(netip.MustParseAddrPort("192.0.2.1:51820"))},
		Uplinks:   opt.Dual[string]{V4: opt.Some("eth0")},
		Peers: []node.PeerReport{
			{Node: "b", PublicKey: "B", Endpoint: "192.0.2.2:51820", Subnets: prefix("10.244.2.0/24", "fd44:0:0:2::/64"), Handshake: now.Add(-9 * time.Second), Received: 2048, Sent: 5,
				State: "up", Paths: []node.PathReport{{Family: "ipv4", State: "up", RTT50: 0.0004, MTU: 1420}, {Family: "ipv6", State: "up", RTT50: 0.0005, MTU: 1420}},
				Rated: true, ReceivedRate: 12_100_000, SentRate: 3200},
			{PublicKey: "C", Endpoint: "192.0.2.3:51820", Subnets: prefix("10.244.3.0/24", "fd44:0:0:3::/64"),
				State: "down", Paths: []node.PathReport{{Family: "ipv4", State: "down", Loss: 1, Reason: "no handshake is answered", Remedy: "loden why a C"}}},
		},
		Problems: []subnet.Problem{{Object: "d 10.244.2.0-24", Reason: "subnet 10.244.2.0/24 is held by the older lease b"}},
		Passes:   node.PassReport{Total: 4, Failed: 1, Changes: map[string]uint64{"routes": 4}},
	}
}

// printed returns the report as a terminal of that width shows it, without colours.
func printed(t *testing.T, r node.Report, width int, now time.Time) string {
	t.Helper()
	var b strings.Builder
	if err := printReport(&b, r, statusView{width: width, now: now}); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestStatusBeginsWithTheVerdictAndTheProblems(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	want := `a  DEGRADED  1 of 2 peers up, 1 down · etcd AWAY for 1m0s · guard caught 3
  packets in plaintext
✗ problem: d 10.244.2.0-24: subnet 10.244.2.0/24 is held by the older lease b
! engine: 1 engines hung and were replaced since the daemon started
  → report it with ` + "`loden doctor --bundle FILE`" + `
! leases: 1 leases vanished at once and are held as peers: z
  → if these nodes are gone for good: loden lease confirm; else start them
✗ peer C: ipv4 is down: no handshake is answered
  → loden why a C

  pods      10.244.1.0/24 fd44:0:0:1::/64 of 10.244.0.0/16 fd44::/48
  tunnel    loden0, UDP 51820, MTU 1420, key KEY
  announced 192.0.2.1:51820 by eth0
  engine    loden (the kernel has no WireGuard); 1 hung engines replaced, 7
            packets dropped (no-peer)
  rules     iptables (nft) (iptables is installed), guard enforce: caught in
            plaintext: 3 ipv4 packets out
  etcd      AWAY for 1m0s, revision 7, 1 vanished leases held (loden lease
            confirm removes them), etcd is not available
  passes    4, 1 incomplete

  PEER  STATE  RTT         LOSS  MTU   HANDSHAKE  IN/OUT B/s
  b     up     0.4/0.5 ms  0%    1420  9s         12M/3.2k
  C     down   –           100%  –     never      –
`
	if diff := linediff.Of(want, printed(t, sample(now), 80, now)); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

func TestStatusFitsEightyColumns(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	r := sample(now)
	r.PublicKey = strings.Repeat("k", 43) + "="
	r.Peers[0].Node = "ip-10-0-255-255.eu-central-1.compute.internal"
	for range 70 {
		r.Peers = append(r.Peers, r.Peers[1])
	}
	for _, line := range strings.Split(printed(t, r, 80, now), "\n") {
		if n := utf8.RuneCountInString(line); n > 80 {
			t.Errorf("%d columns: %s", n, line)
		}
	}
}

func TestStatusOfManyPeersIsASummary(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	r := sample(now)
	for range 60 {
		r.Peers = append(r.Peers, r.Peers[0])
	}
	text := printed(t, r, 80, now)
	if strings.Count(text, "\n") > 36 || !strings.Contains(text, "61 of 62 peers up, 1 down") || !strings.Contains(text, "and 61 more peers, all up (--all lists every peer)") || !strings.Contains(text, "\n  C     down") {
		t.Errorf("%d lines:\n%s", strings.Count(text, "\n"), text)
	}
}

func TestColoursGoToATerminalOnly(t *testing.T) {
	if p := paintFor(&strings.Builder{}); p.on {
		t.Error("a pipe gets colours")
	}
	now := time.Unix(1_800_000_000, 0)
	var b strings.Builder
	if err := printReport(&b, sample(now), statusView{paint: paint{on: true}, width: 80, now: now}); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"\x1b[33mDEGRADED\x1b[0m", "\x1b[31mdown\x1b[0m", "\x1b[32mup\x1b[0m"} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("no %q in\n%q", want, b.String())
		}
	}
	bare := regexp.MustCompile("\x1b\\[[0-9]*m").ReplaceAllString(b.String(), "")
	if diff := linediff.Of(printed(t, sample(now), 80, now), bare); diff != "" {
		t.Errorf("colours change the text:\n%s", diff)
	}
}

func TestMatrixShowsEveryPathWithItsSign(t *testing.T) {
	peer := func(name, state, reason string) node.MatrixPeer {
		return node.MatrixPeer{Node: name, State: state, Paths: []node.PathReport{{Family: "ipv4", State: state, Reason: reason}}}
	}
	m := node.Matrix{Nodes: []string{"alpha", "beta", "gamma"}, Rows: []node.MatrixRow{
		{Node: "alpha", Peers: []node.MatrixPeer{peer("beta", "up", ""), peer("gamma", "down", "no handshake")}},
		{Node: "beta", Peers: []node.MatrixPeer{peer("alpha", "up", ""), peer("gamma", "one-way", "we hear it, it does not hear us")}},
		{Node: "gamma", Error: "no answer within 2s"},
	}}
	var b strings.Builder
	if err := printMatrix(&b, m, paint{}); err != nil {
		t.Fatal(err)
	}
	want := `3 nodes, 2 broken paths

     FROM \ TO  1  2  3
  1  alpha      ·  ✓  ✗
  2  beta       ✓  ·  1
  3  gamma      –  –  ·

  ✓ up  ~ loss  M large packets lost  1 one way  ✗ down  ? not probed
alpha → gamma is down: no handshake
beta → gamma is one-way: we hear it, it does not hear us
gamma gave no report: no answer within 2s
`
	if diff := linediff.Of(want, b.String()); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

// serveStatus answers /status at the socket of a run directory with the report of the moment.
func serveStatus(t *testing.T, dir string, rep func() node.Report) {
	t.Helper()
	l, err := net.Listen("unix", filepath.Join(dir, "loden.sock"))
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_ = json.NewEncoder(w).Encode(rep())
	})}
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(l) }()
	t.Cleanup(func() {
		_ = server.Close()
		<-ended
	})
}

func TestStatusExitsDegradedWhenSomethingIsWrong(t *testing.T) {
	dir := t.TempDir()
	rep := sample(time.Now())
	rep.Problems, rep.Peers = nil, rep.Peers[:1]
	serveStatus(t, dir, func() node.Report { return rep })
	if status, out, _ := loden(t, "status", "--run-dir", dir, "--json"); status != 0 || !json.Valid([]byte(out)) {
		t.Errorf("well: status %d, %s", status, out)
	}
	rep.Problems = sample(time.Now()).Problems
	if status, _, _ := loden(t, "status", "--run-dir", dir); status != exitDegraded {
		t.Errorf("a lease with a problem: status %d", status)
	}
	rep.Problems, rep.Reason = nil, "the interface is down"
	if status, _, _ := loden(t, "status", "--run-dir", dir); status != exitDegraded {
		t.Errorf("degraded: status %d", status)
	}
	for state, want := range map[string]int{"up": 0, "unknown": 0, "degraded": 0, "down": 3, "one-way": 3, "mtu": 3} {
		rep.Reason, rep.Peers[0].State = "", state
		if status, _, _ := loden(t, "status", "--run-dir", dir); status != want {
			t.Errorf("a peer is %s: status %d, want %d", state, status, want)
		}
	}
}
