package node

import (
	"context"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/loden-net/loden/config/opt"
	"github.com/loden-net/loden/network"
	"github.com/loden-net/loden/subnet"
)

// sample is a node with a connected peer, a peer without a handshake, and a problem.
func sample(now time.Time) Report {
	prefix := func(v4, v6 string) opt.Dual[netip.Prefix] {
		return opt.Dual[netip.Prefix]{V4: opt.Some(netip.MustParsePrefix(v4)), V6: opt.Some(netip.MustParsePrefix(v6))}
	}
	return Report{
		Version: "v1", Node: "a", Ready: true, Interface: "loden0", PublicKey: "KEY", Port: 51820, MTU: 1420,
		Engine:    EngineReport{Kind: "kernel", Reason: "the kernel has WireGuard", Replaced: 2, Drops: map[string]uint64{"no-peer": 7}},
		Firewall:  FirewallReport{Kind: "iptables (nft)", Reason: "iptables is installed", Guard: "enforce", Clear: []GuardCounter{{"ipv4", "out", 3}, {"ipv6", "in", 0}}},
		Store:     StoreReport{Up: false, Since: now.Add(-time.Minute), Error: "etcd is not available", Revision: 7, Held: []string{"z"}},
		Networks:  prefix("10.244.0.0/16", "fd44::/48"),
		Subnets:   prefix("10.244.1.0/24", "fd44:0:0:1::/64"),
		Endpoints: opt.Dual[netip.AddrPort]{V4: opt.Some(netip.MustParseAddrPort("192.0.2.1:51820"))},
		Uplinks:   opt.Dual[string]{V4: opt.Some("eth0")},
		Peers: []PeerReport{
			{Node: "b", PublicKey: "B", Endpoint: "192.0.2.2:51820", Subnets: prefix("10.244.2.0/24", "fd44:0:0:2::/64"), Handshake: now.Add(-9 * time.Second), Received: 2048, Sent: 5},
			{PublicKey: "C", Endpoint: "192.0.2.3:51820", Subnets: prefix("10.244.3.0/24", "fd44:0:0:3::/64")},
		},
		Problems: []subnet.Problem{{Object: "d 10.244.2.0-24", Reason: "subnet 10.244.2.0/24 is held by the older lease b"}},
		Passes:   PassReport{Total: 4, Failed: 1, Changes: map[string]uint64{"routes": 4}},
	}
}

// startAPI serves the sample on a socket and over TCP, and returns the TCP address.
func startAPI(t *testing.T, dir string, rep func() Report, confirm func()) string {
	t.Helper()
	unix, tcp, err := listeners(dir, ":0")
	if err != nil {
		t.Fatal(err)
	}
	asked := func(context.Context) Report { return rep() }
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	status := func() (network.Status, bool) { return network.Status{}, false }
	a := api{report: asked, matrix: &matrixMaker{report: asked}, metrics: metricsHandler(asked, 200), confirm: confirm, browser: newBrowser(newRecorder(asked), status, newHostNames("a"))}
	go func() { ended <- a.serve(ctx, unix, tcp) }()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	if host, _, _ := net.SplitHostPort(tcp.Addr().String()); host != "127.0.0.1" {
		t.Errorf("listens on %s", host)
	}
	return tcp.Addr().String()
}

func get(t *testing.T, url string) (int, string) {
	t.Helper()
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(body)
}

func TestAPIAnswersOnASocketForRootAndReadOnlyOverTCP(t *testing.T) {
	dir, confirmed := t.TempDir(), 0
	rep := sample(time.Now())
	addr := startAPI(t, dir, func() Report { return rep }, func() { confirmed++ })
	if info, err := os.Stat(socketPath(dir)); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("socket: %v, %v", info, err)
	}
	if got, err := Ask(t.Context(), dir); err != nil || got.Node != "a" || len(got.Peers) != 2 || got.Peers[0].Subnets != rep.Peers[0].Subnets {
		t.Errorf("got %+v, %v", got, err)
	}
	for path, want := range map[string]int{"/healthz": 200, "/readyz": 200, "/status": 200, "/metrics": 200, "/matrix": 200, "/removals/confirm": 404} {
		if code, body := get(t, "http://"+addr+path); code != want {
			t.Errorf("%s over TCP: %d %s", path, code, body)
		}
	}
	resp, err := request(t.Context(), dir, http.MethodPost, "/removals/confirm")
	if err != nil || resp.StatusCode != http.StatusNoContent || confirmed != 1 {
		t.Fatalf("confirm: %v, %d times", err, confirmed)
	}
	_ = resp.Body.Close()
}

func TestReadyzSaysWhyNot(t *testing.T) {
	rep := Report{Reason: "waiting for etcd"}
	addr := startAPI(t, t.TempDir(), func() Report { return rep }, func() {})
	if code, body := get(t, "http://"+addr+"/readyz"); code != 503 || body != "waiting for etcd\n" {
		t.Errorf("got %d %q", code, body)
	}
}

// A black hole in the userspace engine is visible to the operator only by its counters.
func TestReportHasTheDropCountersOfTheEngine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBed(t, bedDocument, 2)
		b.device = newUserspace()
		n, stop := b.run()
		b.device.Drop("no-peer", 7)
		if got := n.reporter.report(t.Context()).Engine.Drops; len(got) != 1 || got["no-peer"] != 7 {
			t.Errorf("got %v", got)
		}
		must(t, stop())
	})
}

func TestMetricsAreTheReport(t *testing.T) {
	now := time.Now()
	addr := startAPI(t, t.TempDir(), func() Report { return sample(now) }, func() {})
	_, body := get(t, "http://"+addr+"/metrics")
	for _, want := range []string{
		`loden_build_info{engine="kernel",firewall="iptables (nft)",version="v1"} 1`,
		`loden_engines_replaced_total 2`, `loden_engine_dropped_packets_total{reason="no-peer"} 7`,
		`loden_problems_by_kind{kind="lease"} 1`, `loden_problems_by_kind{kind="etcd"} 1`, `loden_problems_by_kind{kind="peer-down"} 0`,
		`loden_ready 1`, `loden_store_up 0`, `loden_problems 1`, `loden_held_leases 1`,
		`loden_peers{state="connected"} 1`, `loden_peers{state="idle"} 1`,
		`loden_passes_total{result="incomplete"} 1`, `loden_changes_total{part="routes"} 4`,
		`loden_plaintext_blocked_packets_total{direction="out",family="ipv4"} 3`,
		`wireguard_received_bytes_total{interface="loden0",node="b",public_key="B"} 2048`,
		`wireguard_latest_handshake_seconds{interface="loden0",node="",public_key="C"} 0`,
	} {
		if !strings.Contains(body, want+"\n") {
			t.Errorf("no %s in:\n%s", want, body)
		}
	}
}
