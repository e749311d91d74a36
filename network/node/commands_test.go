package node

import (
	"context"
	"encoding/json"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"github.com/loden-net/loden/backend"
	"github.com/loden-net/loden/config"
	"github.com/loden-net/loden/config/opt"
	"github.com/loden-net/loden/network"
	"github.com/loden-net/loden/network/firewall"
	"github.com/loden-net/loden/network/wire"
	"github.com/loden-net/loden/subnet/etcd"
)

// made returns the changes in the log, in the form of diff.Change.String.
func (l *lines) made(t testing.TB) []string {
	t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	var out []string
	for line := range strings.Lines(l.text.String()) {
		var e struct{ Message, Part, Verb, Object string }
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			t.Fatal(err)
		}
		if e.Message == "changed" {
			out = append(out, e.Part+": "+e.Verb+" "+e.Object)
		}
	}
	return out
}

// The house, point 4: plan lists the very changes that the first pass makes.
func TestPlanListsTheChangesOfTheFirstPass(t *testing.T) {
	const dual = `{"Network":"10.244.0.0/16","EnableIPv6":true,"IPv6Network":"fd44::/48","Backend":{"Type":"wireguard","PSK":"BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc="}}`
	for name, setUp := range map[string]func(*testing.T) *bed{
		"fresh host, kernel":       func(t *testing.T) *bed { return newBed(t, bedDocument) },
		"fresh host, peers":        func(t *testing.T) *bed { return newBed(t, bedDocument, 2, 3, 4) },
		"dual stack with a key":    func(t *testing.T) *bed { return newBed(t, dual, 2) },
		"userspace":                func(t *testing.T) *bed { b := newBed(t, dual, 2, 3); b.device = newUserspace(); return b },
		"subnets of subnet.env":    func(t *testing.T) *bed { b := newBed(t, bedDocument, 2); b.writeEnv("10.244.77.1/24"); return b },
		"taken subnets in the env": func(t *testing.T) *bed { b := newBed(t, bedDocument, 2); b.writeEnv("10.244.2.1/24"); return b },
		"after a reboot": func(t *testing.T) *bed {
			b := newBed(t, bedDocument, 2, 3)
			_, stop := b.run()
			later(2 * time.Second)
			must(t, stop())
			b.reboot()
			return b
		},
		"restart without a change": func(t *testing.T) *bed {
			b := newBed(t, bedDocument, 2, 3)
			_, stop := b.run()
			later(2 * time.Second)
			must(t, stop())
			return b
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := setUp(t)
				must(t, os.MkdirAll(b.settings.StateDir, 0o700))
				_, _, err := backend.OpenKey(b.settings.StateDir) // plan and run see the same key
				must(t, err)
				before := len(b.logged.made(t))
				planned, err := b.environment().plan(t.Context(), b.settings)
				must(t, err)
				if len(b.logged.made(t)) != before {
					t.Fatal("plan changes the host")
				}
				var want []string
				for _, c := range planned {
					want = append(want, c.String())
				}
				_, stop := b.run()
				got := b.logged.made(t)[before:]
				must(t, stop())
				if !slices.Equal(got, want) {
					t.Errorf("plan:\n  %s\nfirst pass:\n  %s", strings.Join(want, "\n  "), strings.Join(got, "\n  "))
				}
			})
		})
	}
}

// writeEnv writes a subnet.env of an earlier run.
func (b *bed) writeEnv(subnet string) {
	b.t.Helper()
	must(b.t, config.WriteFile(b.settings.SubnetFile, []byte("FLANNEL_SUBNET="+subnet+"\n"), 0o644, 0o755))
}

func TestPlanNeedsStoreDocumentAndUplink(t *testing.T) {
	for name, c := range map[string]struct {
		spoil func(*bed)
		want  string
	}{
		"store away":             {func(b *bed) { b.store.Away = etcd.ErrUnavailable }, "not available"},
		"no document":            {func(b *bed) { b.store.Wrong = etcd.ErrNoNetwork }, "no network document"},
		"no uplink":              {func(b *bed) { b.kernel.fault = errors.New("no uplink: name the interface with --iface") }, "--iface"},
		"key garbled":            {func(b *bed) { b.put(backend.KeyPath(b.settings.StateDir), "x") }, "key"},
		"rules fail":             {func(b *bed) { b.packets.Fail(errors.New("ip6tables is missing")) }, "ip6tables"},
		"no firewall":            {func(b *bed) { b.firewallFault = errors.New("neither iptables nor nft is installed") }, "neither iptables nor nft"},
		"unreadable certificate": {func(b *bed) { b.storeFault = errors.New("--etcd-certfile: open /absent: no such file") }, "--etcd-certfile"},
		"no free room": {func(b *bed) {
			b.store.Document = documentOf(b.t, `{"Network":"10.244.0.0/22","SubnetLen":24,"SubnetMin":"10.244.2.0","SubnetMax":"10.244.2.0"}`)
		}, "out of subnets"},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBed(t, bedDocument, 2)
			c.spoil(b)
			if _, err := b.environment().plan(t.Context(), b.settings); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
}

func (b *bed) put(path, text string) {
	b.t.Helper()
	must(b.t, config.WriteFile(path, []byte(text), 0o600, 0o700))
}

// found returns the findings as text, by name.
func found(findings []Finding) map[string]string {
	out := map[string]string{}
	for _, f := range findings {
		out[f.What] = string(f.State) + " " + f.Detail
	}
	return out
}

func TestCheckFindsNothingWrongWithAGoodHost(t *testing.T) {
	b := newBed(t, bedDocument)
	for _, f := range b.environment().check(t.Context(), b.settings, CheckOptions{}) {
		if f.State != Good && f.What != "privilege" {
			t.Errorf("%s: %s %s", f.What, f.State, f.Detail)
		}
	}
	if _, err := os.Stat(b.settings.StateDir); !errors.Is(err, os.ErrNotExist) {
		t.Error("check makes the state directory")
	}
}

func TestCheckNamesTheCause(t *testing.T) {
	for name, c := range map[string]struct {
		spoil func(*bed)
		what  string
		want  string // start of the finding
		fine  string // a finding that is not touched
	}{
		"store away":     {func(b *bed) { b.store.Away = etcd.ErrUnavailable }, "etcd", "FAIL etcd is not available", "firewall"},
		"wrong document": {func(b *bed) { b.store.Wrong = errors.New("unknown Backend.Type") }, "network document", "FAIL unknown Backend.Type", "firewall"},
		"no uplink":      {func(b *bed) { b.kernel.fault = errors.New("no uplink") }, "uplink", "FAIL no uplink", "etcd"},
		"no firewall":    {func(b *bed) { b.firewallFault = errors.New("neither iptables nor nft is installed") }, "firewall", "FAIL neither iptables nor nft", "port"},
		"packets dropped": {func(b *bed) {
			b.packets.Obstruct(firewall.Problem{Object: "chain FORWARD", Reason: "drops pods' packets"})
		}, "firewall", "FAIL chain FORWARD: drops pods' packets", "port"},
		"certificate":        {func(b *bed) { b.storeFault = errors.New("--etcd-certfile: open /absent: no such file") }, "etcd", "FAIL --etcd-certfile", "firewall"},
		"store in overlay":   {func(b *bed) { b.settings.Etcd.Endpoints = []string{"http://10.244.3.3:2379"} }, "overlay", "FAIL etcd http://10.244.3.3:2379: ", "etcd"},
		"no WireGuard":       {func(b *bed) { b.deviceFault = errors.New("/dev/net/tun is missing") }, "wireguard", "FAIL /dev/net/tun is missing", "etcd"},
		"rules fail":         {func(b *bed) { b.packets.Fail(errors.New("ip6tables is missing")) }, "firewall", "FAIL", "port"},
		"small MTU for IPv6": {func(b *bed) { b.small() }, "overlay", "FAIL n1: the tunnel's MTU is 1240 bytes and IPv6 needs 1280", "etcd"},
		"key garbled":        {func(b *bed) { b.put(backend.KeyPath(b.settings.StateDir), "x") }, "private key", "FAIL", "etcd"},
		"state directory": {func(b *bed) {
			b.put(filepath.Dir(b.settings.StateDir)+"/file", "")
			b.settings.StateDir = filepath.Dir(b.settings.StateDir) + "/file/state"
		}, "directories", "FAIL", "etcd"},
		"LAN in the overlay": {func(b *bed) { b.kernel.state.Uplinks = uplink("10.244.9.9") }, "overlay", "ok the uplink's address 10.244.9.9 lies in the overlay", "port"},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBed(t, bedDocument)
			c.spoil(b)
			got := found(b.environment().check(t.Context(), b.settings, CheckOptions{}))
			if !strings.HasPrefix(got[c.what], c.want) || !strings.HasPrefix(got[c.fine], "ok ") {
				t.Errorf("got %q, want %q; %s: %q", got[c.what], c.want, c.fine, got[c.fine])
			}
		})
	}
}

func TestPrivilegeNamesTheMissingCapabilities(t *testing.T) {
	all := []uint{unix.CAP_NET_ADMIN, unix.CAP_NET_RAW}
	for name, c := range map[string]struct {
		euid int
		has  []uint
		want string // of the error
	}{
		"root":              {0, all, ""},
		"user":              {1000, all, "not root: use sudo"},
		"root without RAW":  {0, all[:1], "root without CAP_NET_RAW: add it"},
		"root without both": {0, nil, "root without CAP_NET_ADMIN and CAP_NET_RAW: add it"},
	} {
		_, detail, err := privilege(c.euid, func(bit uint) bool { return slices.Contains(c.has, bit) })
		if c.want == "" && (err != nil || detail == "") || c.want != "" && (err == nil || !strings.HasPrefix(err.Error(), c.want)) {
			t.Errorf("%s: got %q, %v; want %q", name, detail, err, c.want)
		}
	}
}

// An empty sample is good only when the canaries show that a packet in clear would be seen.
func TestSampleOfTheWireIsGoodOnlyWithAllItsCanaries(t *testing.T) {
	o := wire.Options{Interfaces: []string{"eth0", "eth1"}, For: 2 * time.Second}
	for name, c := range map[string]struct {
		result wire.Result
		want   State
		detail string
	}{
		"encrypted":         {wire.Result{CanariesSent: 6, CanariesSeen: 6}, Good, "no packet in clear; 6 of 6 canaries seen on eth0 eth1 in 2s"},
		"canary not seen":   {wire.Result{CanariesSent: 6, CanariesSeen: 5}, Warn, "5 of 6 canaries seen"},
		"no canary sent":    {wire.Result{}, Warn, "0 of 0 canaries seen"},
		"packets missed":    {wire.Result{CanariesSent: 6, CanariesSeen: 6, Missed: 1}, Warn, "is no proof"},
		"packets in clear":  {wire.Result{CanariesSent: 6, CanariesSeen: 6, Clear: 3}, Bad, "3 packets with overlay addresses in clear"},
		"clear, no canary ": {wire.Result{CanariesSent: 6, Clear: 1}, Bad, "1 packets with overlay addresses in clear"},
	} {
		if f := judgeSample(c.result, o); f.What != "wire" || f.State != c.want || !strings.Contains(f.Detail, c.detail) {
			t.Errorf("%s: got %+v, want %s %q", name, f, c.want, c.detail)
		}
	}
}

// --wire on a host without a network that leads off the node has no interface to watch.
func TestCheckOfTheWireSaysThatThereIsNoInterface(t *testing.T) {
	b := newBed(t, bedDocument)
	got := found(b.environment().check(t.Context(), b.settings, CheckOptions{Wire: true}))
	if !strings.HasPrefix(got["wire"], "FAIL watch the wire: no interface") || !strings.HasPrefix(got["port"], "ok") {
		t.Errorf("wire %q, port %q", got["wire"], got["port"])
	}
}

// small gives the host an uplink that has no room for IPv6 in a tunnel.
func (b *bed) small() {
	b.store.Document = documentOf(b.t, `{"Network":"10.244.0.0/16","EnableIPv6":true,"IPv6Network":"fd44::/48"}`)
	u := b.kernel.state.Uplinks.V4.Or(network.Uplink{})
	u.MTU = 1300
	b.kernel.state.Uplinks = b.kernel.state.Uplinks.With(opt.V4, u)
}

// The house, point 4: check once opened the firewall before it had read the document.
func TestCheckChoosesTheFirewallThatRunChooses(t *testing.T) {
	b := newBed(t, `{"Network":"10.244.0.0/16","EnableNFTables":true}`)
	var asked []bool
	env := b.environment()
	env.firewall = func(_ context.Context, _ Settings, preferNFTables bool) (*firewall.Firewall, error) {
		asked = append(asked, preferNFTables)
		return b.firewall, nil
	}
	env.check(t.Context(), b.settings, CheckOptions{})
	p, err := env.prepare(t.Context(), b.settings)
	must(t, err)
	p.close()
	if !slices.Equal(asked, []bool{true, true}) {
		t.Errorf("check and run prefer nftables: %v", asked)
	}
}

// N2: a hung engine once made check blame etcd and the firewall.
func TestFindingWithoutAnAnswerDoesNotHoldUpTheOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBed(t, bedDocument)
		hung := make(chan struct{})
		env := b.environment()
		env.device = func(Settings) (*backend.Device, error) {
			<-hung
			return nil, errors.New("too late")
		}
		began := time.Now()
		got := found(env.check(t.Context(), b.settings, CheckOptions{Limit: 2 * time.Second}))
		if took := time.Since(began); took > 3*time.Second {
			t.Errorf("check took %v", took)
		}
		if !strings.HasPrefix(got["wireguard"], "FAIL no answer within 2s") || !strings.HasPrefix(got["etcd"], "ok") || !strings.HasPrefix(got["firewall"], "ok") {
			t.Errorf("got %v", got)
		}
		close(hung)
		synctest.Wait()
	})
}

func TestDownClearsTheHostAndReleasesTheLease(t *testing.T) {
	for name, c := range map[string]struct {
		options DownOptions
		away    error
		stays   bool
		want    string
	}{
		"all":        {DownOptions{}, nil, false, ""},
		"keep lease": {DownOptions{KeepLease: true}, nil, true, ""},
		"etcd away":  {DownOptions{}, etcd.ErrUnavailable, true, "loden lease release n1"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBed(t, bedDocument, 2)
				_, stop := b.run()
				later(2 * time.Second)
				must(t, stop())
				must(t, os.MkdirAll(b.settings.RunDir, 0o755))
				b.settings.Record = []byte(`{"guard":["warn"]}`)
				must(t, keepRecord(b.settings))
				if got, err := Record(b.settings.RunDir); err != nil || string(got) != `{"guard":["warn"]}` {
					t.Errorf("record %s, %v", got, err)
				}
				b.put(filepath.Join(b.settings.StateDir, ".leases.json.77"), "secret")
				b.store.Away = c.away
				err := b.environment().down(t.Context(), b.settings, c.options)
				if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
					t.Errorf("got %v, want %q", err, c.want)
				}
				if !b.packets.Empty() || b.kernel.env().Present() {
					t.Error("rules or subnet.env are left")
				}
				if b.store.Stored("n1").Present() != c.stays {
					t.Errorf("the lease stays: %v, want %v", !c.stays, c.stays)
				}
				if got, err := Record(b.settings.RunDir); err != nil || got != nil {
					t.Errorf("record after down: %s, %v", got, err)
				}
				if left, _ := filepath.Glob(filepath.Join(b.settings.StateDir, ".leases.json.*")); len(left) > 0 {
					t.Errorf("left: %v", left)
				}
			})
		})
	}
}

func TestDownRefusesWhileADaemonRuns(t *testing.T) {
	b := newBed(t, bedDocument)
	lock, err := lockNode(b.settings.RunDir)
	must(t, err)
	defer lock.Close()
	if err := b.environment().down(t.Context(), b.settings, DownOptions{}); !errors.Is(err, errLocked) {
		t.Errorf("got %v", err)
	}
}

func TestSettingsSayWhatTheNodeIs(t *testing.T) {
	s := Settings{Settings: config.Settings{
		Name: "a", ListenPort: 7, Interface: "wg9", LeaseTTL: time.Hour,
		Etcd:  config.Etcd{Endpoints: []string{"http://192.0.2.1:2379"}, Prefix: "/p", Username: "u", Password: "secret"},
		Rules: config.Rules{Masq: true, IPv6Masq: "always", Exclude: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}, Mark: config.Mark{Value: 1, Mask: 3}, Guard: "warn"},
	}}
	key, err := backend.NewKey()
	must(t, err)
	self := s.self(key, true)
	if self.Name != "a" || self.Port != 7 || self.Interface != "wg9" || !self.Kernel || self.Policy.Mark != (firewall.Mark{Value: 1, Mask: 3}) || self.Policy.Guard != "warn" {
		t.Errorf("self %+v", self)
	}
	if o := s.Store(); o.Prefix != "/p" || o.Username != "u" || o.TTL != time.Hour {
		t.Errorf("store %v", o)
	}
}
