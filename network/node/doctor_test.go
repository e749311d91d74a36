package node

import (
	"archive/tar"
	"compress/gzip"
	"errors"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/loden-net/loden/backend"
	"github.com/loden-net/loden/config/opt"
	"github.com/loden-net/loden/network/probe"
	"github.com/loden-net/loden/network/trace"
	"github.com/loden-net/loden/subnet"
)

// faultOf returns the first finding of a name that is not good.
func faultOf(findings []Finding, what string) Finding {
	for _, f := range findings {
		if f.What == what && f.State != Good {
			return f
		}
	}
	return Finding{}
}

// healthyReport is a node with a peer, and no fault.
func healthyReport() Report {
	prefix := func(s string) opt.Dual[netip.Prefix] {
		return opt.Dual[netip.Prefix]{V4: opt.Some(netip.MustParsePrefix(s))}
	}
	endpoint := opt.Dual[netip.AddrPort]{V4: opt.Some(netip.MustParseAddrPort("192.0.2.2:51820"))}
	return Report{
		Node: "n1", Ready: true, Engine: EngineReport{Kind: "loden"}, Firewall: FirewallReport{Guard: "enforce"}, Store: StoreReport{Up: true},
		Networks: prefix("10.244.0.0/16"), Subnets: prefix("10.244.1.0/24"),
		Peers: []PeerReport{{Node: "n2", PublicKey: "B", State: probe.Up, Endpoint: "192.0.2.2:51820", Announced: endpoint, Subnets: prefix("10.244.2.0/24"), Handshake: time.Now(),
			Paths: []PathReport{{Family: "ipv4", State: probe.Up, MTU: 1420}}}},
	}
}

func TestReportWithoutAFaultGivesNoFinding(t *testing.T) {
	for _, f := range ofReport(healthyReport()) {
		if f.State != Good {
			t.Errorf("%+v", f)
		}
	}
}

func TestDoctorNamesTheFaultsOfAReport(t *testing.T) {
	for name, c := range map[string]struct {
		spoil        func(*Report)
		what, detail string
		state        State
	}{
		"not ready":       {func(r *Report) { r.Ready, r.Reason = false, "waiting for etcd" }, "node", "not ready: waiting for etcd", Bad},
		"reason":          {func(r *Report) { r.Reason = "the interface is down" }, "node", "the interface is down", Bad},
		"problem":         {func(r *Report) { r.Problems = []subnet.Problem{{Object: "d", Reason: "overlaps"}} }, "problem", "d: overlaps", Bad},
		"engine hangs":    {func(r *Report) { r.Engine.Silent = true }, "engine", "gives no answer", Bad},
		"engine replaced": {func(r *Report) { r.Engine.Replaced = 2 }, "engine", "2 engines hung", Warn},
		"etcd away":       {func(r *Report) { r.Store = StoreReport{Error: "timeout"} }, "leases", "etcd is away", Bad},
		"held":            {func(r *Report) { r.Store.Held = []string{"a", "b"} }, "leases", "2 leases vanished at once", Warn},
		"path down": {func(r *Report) {
			r.Peers[0].Paths[0] = PathReport{Family: "ipv4", State: probe.Down, Reason: "no answer"}
		}, "peer n2", "ipv4 is down: no answer", Bad},
		"MTU": {func(r *Report) {
			r.Peers[0].Paths[0] = PathReport{Family: "ipv4", State: probe.MTU, Reason: "1340 pass"}
		}, "peer n2", "ipv4 is mtu: 1340 pass", Bad},
		"loss":         {func(r *Report) { r.Peers[0].Paths[0].State = probe.Degraded }, "peer n2", "degraded", Warn},
		"behind a NAT": {func(r *Report) { r.Peers[0].Endpoint = "198.51.100.7:40000" }, "peer n2", "announces 192.0.2.2:51820, and it is heard at 198.51.100.7:40000", Warn},
	} {
		t.Run(name, func(t *testing.T) {
			r := healthyReport()
			c.spoil(&r)
			f := faultOf(ofReport(r), c.what)
			if f.State != c.state || !strings.Contains(f.Detail, c.detail) {
				t.Errorf("got %+v, want %s %q", f, c.state, c.detail)
			}
		})
	}
}

func TestPeersViewTellsOfClockAndEndpoint(t *testing.T) {
	own := map[string]bool{"192.0.2.1:51820": true}
	good := View{Endpoint: "192.0.2.1:51820"}
	if f := judgeView(PeerView{Node: "n2", View: good, Ahead: time.Second}, own); len(f) > 0 {
		t.Errorf("good view: %+v", f)
	}
	for _, ahead := range []time.Duration{2 * time.Hour, -2 * time.Hour} {
		f := faultOf(judgeView(PeerView{Node: "n2", View: good, Ahead: ahead}, own), "clock")
		if f.State != Warn || !strings.Contains(f.Detail, "2h0m0s") || !strings.Contains(f.Remedy, "timedatectl") {
			t.Errorf("%v: %+v", ahead, f)
		}
	}
	if f := faultOf(judgeView(PeerView{Node: "n2", View: View{Endpoint: "198.51.100.7:1"}}, own), "announced endpoint"); !strings.Contains(f.Remedy, "--public-ip") {
		t.Errorf("endpoint: %+v", f)
	}
}

func TestDoctorWithoutADaemonSaysSoAndExaminesTheHost(t *testing.T) {
	b := newBed(t, bedDocument, 2)
	d := b.environment().doctor(t.Context(), b.settings, CheckOptions{}, &trace.Fake{LinkList: []trace.Link{{Name: "flannel.1"}}})
	if f := faultOf(d.Findings, "daemon"); f.State != Bad || !strings.Contains(f.Detail, "start `loden run`") {
		t.Errorf("daemon: %+v", f)
	}
	if f := faultOf(d.Findings, "flannel's leftovers"); f.State != Warn {
		t.Errorf("flannel: %+v", f)
	}
	if d.Count(Good) == 0 || d.APIVersion != 1 {
		t.Errorf("%+v", d)
	}
}

func TestShadowedConfigurationIsAFaultWhileRunning(t *testing.T) {
	b := newBed(t, bedDocument)
	b.settings.CNI.ConfDir = t.TempDir()
	b.put(filepath.Join(b.settings.CNI.ConfDir, "05-other.conflist"), "{}")
	x := &examination{check: b.environment().newCheck(b.settings, CheckOptions{}), report: opt.Some(healthyReport())}
	found := x.cniSide()
	if f := faultOf(found, "CNI"); !strings.Contains(f.Detail, "05-other.conflist sorts before") || !strings.HasPrefix(f.Remedy, "remove it: mv ") {
		t.Errorf("%+v", found)
	}
	if len(found) != 2 || !strings.Contains(found[1].Detail, "10-loden.conflist is missing") {
		t.Errorf("%+v", found)
	}
}

func TestBundleHoldsNoSecret(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const psk = "BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc="
		b := newBed(t, `{"Network":"10.244.0.0/16","Backend":{"Type":"wireguard","PSK":"`+psk+`"}}`, 2)
		_, stop := b.run()
		later(time.Second)
		must(t, stop())
		b.settings.Etcd.Password = "correct horse"
		key, err := os.ReadFile(backend.KeyPath(b.settings.StateDir))
		must(t, err)
		secrets := secretsOf(b.settings)
		for _, want := range []string{psk, "correct horse", strings.TrimSpace(string(key))} {
			if !strings.Contains(strings.Join(secrets, "\n"), want) {
				t.Fatalf("a secret is not known: have %d", len(secrets))
			}
		}
		path := filepath.Join(t.TempDir(), "b.tar.gz")
		must(t, writeArchive(path, map[string][]byte{"a.txt": []byte("x " + strings.Join(secrets, " y ") + " z")}, secrets))
		if text := unpack(t, path)["loden-bundle/a.txt"]; text != "x [redacted] y [redacted] y [redacted] z" {
			t.Errorf("got %q", text)
		}
	})
}

// unpack returns the files of a bundle.
func unpack(t *testing.T, path string) map[string]string {
	t.Helper()
	f, err := os.Open(path)
	must(t, err)
	defer f.Close()
	zip, err := gzip.NewReader(f)
	must(t, err)
	out := map[string]string{}
	for archive := tar.NewReader(zip); ; {
		h, err := archive.Next()
		if errors.Is(err, io.EOF) {
			return out
		}
		must(t, err)
		data, err := io.ReadAll(archive)
		must(t, err)
		out[h.Name] = string(data)
	}
}

func TestNameOfAnotherMachineIsAFaultBeforeTheStart(t *testing.T) {
	b := newBed(t, bedDocument, 1, 2) // the lease of n1 has another key than this host
	found := b.environment().check(t.Context(), b.settings, CheckOptions{})
	if f := faultOf(found, "node name"); f.State != Bad || !strings.Contains(f.Detail, "give this node another name with --node-name") {
		t.Errorf("%+v", found)
	}
	b = newBed(t, bedDocument, 2)
	if f := faultOf(b.environment().check(t.Context(), b.settings, CheckOptions{}), "node name"); f.What != "" {
		t.Errorf("%+v", f)
	}
}

func TestNameOfTheStoreWithoutAnAddressIsAFault(t *testing.T) {
	b := newBed(t, bedDocument)
	b.settings.Etcd.Endpoints = []string{"http://etcd.invalid:2379"} // RFC 6761: the name never has an address
	found := b.environment().check(t.Context(), b.settings, CheckOptions{})
	if f := faultOf(found, "etcd"); f.State != Bad || !strings.Contains(f.Detail, "the name etcd.invalid has no address") {
		t.Errorf("%+v", found)
	}
}
