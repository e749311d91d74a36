package main

import (
	"encoding/json"
	"net"
	"net/http"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"
	"time"

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
			{Node: "b", PublicKey: "B", Endpoint: "192.0.2.2:51820", Subnets: prefix("10.244.2.0/24", "fd44:0:0:2::/64"), Handshake: now.Add(-9 * time.Second), Received: 2048, Sent: 5},
			{PublicKey: "C", Endpoint: "192.0.2.3:51820", Subnets: prefix("10.244.3.0/24", "fd44:0:0:3::/64")},
		},
		Problems: []subnet.Problem{{Object: "d 10.244.2.0-24", Reason: "subnet 10.244.2.0/24 is held by the older lease b"}},
		Passes:   node.PassReport{Total: 4, Failed: 1, Changes: map[string]uint64{"routes": 4}},
	}
}

func TestStatusTable(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	var b strings.Builder
	if err := printReport(&b, sample(now), now); err != nil {
		t.Fatal(err)
	}
	want := `node          a                              ready
subnets       10.244.1.0/24 fd44:0:0:1::/64  of 10.244.0.0/16 fd44::/48
interface     loden0                         port 51820, MTU 1420, key KEY
announced     192.0.2.1:51820                by eth0
encrypted by  loden                          the kernel has no WireGuard
engine        -                              1 hung engines replaced, 7 packets dropped (no-peer)
rules in      iptables (nft)                 iptables is installed
guard         enforce                        caught in plaintext: 3 ipv4 packets out
etcd          AWAY                           for 1m0s, revision 7, 1 vanished leases held (loden lease confirm removes them), etcd is not available
passes        4                              1 incomplete

PEER  SUBNETS                        ENDPOINT         HANDSHAKE  RECEIVED  SENT
b     10.244.2.0/24 fd44:0:0:2::/64  192.0.2.2:51820  9s ago     2.0 KiB   5 B
C     10.244.3.0/24 fd44:0:0:3::/64  192.0.2.3:51820  never      0 B       0 B

PROBLEM          REASON
d 10.244.2.0-24  subnet 10.244.2.0/24 is held by the older lease b
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
	rep.Problems = nil
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
}
