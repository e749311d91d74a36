package config_test

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/spf13/pflag"
	"pgregory.net/rapid"

	"github.com/loden-net/loden/config"
	"github.com/loden-net/loden/config/opt"
)

// allFlags returns the flags of `loden run`, bound to n.
func allFlags(n *config.Node) *pflag.FlagSet {
	fs := pflag.NewFlagSet("run", pflag.ContinueOnError)
	n.StoreFlags(fs)
	n.HostFlags(fs)
	n.RunFlags(fs)
	return fs
}

func parse(n config.Node) error {
	_, err := n.Parse()
	return err
}

func TestEnvironmentFillsWhatFlagsLeave(t *testing.T) {
	var n config.Node
	fs := pflag.NewFlagSet("run", pflag.ContinueOnError)
	n.StoreFlags(fs)
	n.HostFlags(fs)
	n.RunFlags(fs)
	if err := fs.Parse([]string{"--node-name=a", "--ip-masq"}); err != nil {
		t.Fatal(err)
	}
	env := map[string]string{"LODEN_NODE_NAME": "b", "LODEN_PUBLIC_IP": "192.0.2.1", "LODEN_ETCD_PREFIX": "", "LODEN_ETCD_PASSWORD": "s3cret"}
	err := config.FromEnvironment(fs, func(k string) (string, bool) { v, ok := env[k]; return v, ok })
	if err != nil || n.Name != "a" || n.PublicIP != "192.0.2.1" || n.EtcdPrefix != "/coreos.com/network" || n.EtcdPassword != "s3cret" {
		t.Errorf("got %+v, %v", n, err)
	}
	if text := strings.Join([]string{n.EtcdPassword.String(), fs.Lookup("etcd-password").Value.String()}, " "); strings.Contains(text, "s3cret") {
		t.Error("the password prints")
	}
	if err := parse(n); err != nil {
		t.Error(err)
	}
	env["LODEN_IP_MASQ"], env["LODEN_LEASE_TTL"] = "", "soon"
	if err := config.FromEnvironment(fs, func(k string) (string, bool) { v, ok := env[k]; return v, ok }); err == nil || !strings.Contains(err.Error(), "LODEN_LEASE_TTL") {
		t.Errorf("bad value: got %v", err)
	}
}

func TestNodeSettingsAreCheckedOneLineEach(t *testing.T) {
	set := func(args ...string) error {
		var n config.Node
		fs := pflag.NewFlagSet("run", pflag.ContinueOnError)
		n.StoreFlags(fs)
		n.HostFlags(fs)
		n.RunFlags(fs)
		if err := fs.Parse(append([]string{"--node-name=a"}, args...)); err != nil {
			return err
		}
		return parse(n)
	}
	for _, fine := range []string{"--node-name=a", "--node-name=node-1.example_net", "--node-name=" + strings.Repeat("a", 253)} {
		if err := set(fine); err != nil {
			t.Errorf("%s: got %v", fine, err)
		}
	}
	for _, bad := range []string{
		"--node-name=a b", "--node-name=-a", "--node-name=a.", "--node-name=ä", "--node-name=", "--node-name=" + strings.Repeat("a", 254), "--engine=fast", "--firewall=ufw", "--guard=maybe", "--guard-ports=0", "--guard-ports=http", "--ipv6-masq=yes", "--public-ip=fd00::1",
		"--public-ipv6=192.0.2.1", "--iface-regex=[", "--iface-can-reach=host", "--masq-exclude=10.0.0.0", "--lease-ttl=1s",
		"--resync=0s", "--removal-hold=-1s", "--store-wait=-1s", "--wire-sample=1s", "--etcd-endpoints=", "--listen-port=70000", "--engine-no-offload=gso", "--masq-mark=0x4000", "--masq-mark=3/1", "--masq-mark=1/0", "--masq-mark=1/x", "--interface=a-name-that-is-too-long",
	} {
		flag, _, _ := strings.Cut(bad, "=")
		if err := set(bad); err == nil || !strings.Contains(err.Error(), flag) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: got %v", bad, err)
		}
	}
}

func TestSettingsAreValidValuesOfTheText(t *testing.T) {
	var n config.Node
	err := allFlags(&n).Parse([]string{
		"--node-name=a", "--public-ip=192.0.2.1", "--public-ipv6=2001:db8::1", "--iface-regex=^eth", "--iface-can-reach=198.51.100.1",
		"--masq-exclude=192.0.2.9/24", "--masq-mark=0x40/0xc0", "--listen-port=4000", "--wire-sample=1m", "--guard-ports=22380,22379",
	})
	if err != nil {
		t.Fatal(err)
	}
	s, err := n.Parse()
	if err != nil {
		t.Fatal(err)
	}
	if s.Uplinks.Public != (opt.Dual[netip.Addr]{V4: opt.Some(netip.MustParseAddr("192.0.2.1")), V6: opt.Some(netip.MustParseAddr("2001:db8::1"))}) {
		t.Errorf("public addresses: %v", s.Uplinks.Public)
	}
	if s.Uplinks.CanReach != opt.Some(netip.MustParseAddr("198.51.100.1")) || len(s.Uplinks.Regexes) != 1 || !s.Uplinks.Regexes[0].MatchString("eth1") {
		t.Errorf("uplinks: %+v", s.Uplinks)
	}
	if s.Rules.Mark != (config.Mark{Value: 0x40, Mask: 0xc0}) || s.Rules.Exclude[0].String() != "192.0.2.0/24" {
		t.Errorf("rules: %+v", s.Rules)
	}
	if s.Rules.GuardPorts.String() != "22379,22380" {
		t.Errorf("closed ports: %q", s.Rules.GuardPorts)
	}
	if s.ListenPort != 4000 || s.WireSample != time.Minute || s.StoreWait != 5*time.Minute {
		t.Errorf("got %+v", s)
	}
}

func TestRecordedFlagsFillWhatTheCommandLineLeaves(t *testing.T) {
	var daemon, other config.Node
	recorded := allFlags(&daemon)
	if err := recorded.Parse([]string{"--node-name=a", "--iface=eth1", "--iface=eth2", "--etcd-endpoints=http://192.0.2.1:2379,http://192.0.2.2:2379",
		"--etcd-password=s3cret", "--guard=warn", "--ip-masq"}); err != nil {
		t.Fatal(err)
	}
	data, err := config.RecordFlags(recorded)
	if err != nil || strings.Contains(string(data), "s3cret") {
		t.Fatalf("record %s, %v", data, err)
	}
	fs := allFlags(&other)
	if err := fs.Parse([]string{"--guard=off"}); err != nil {
		t.Fatal(err)
	}
	if err := config.FromRecord(fs, data); err != nil {
		t.Fatal(err)
	}
	if other.Name != "a" || strings.Join(other.Ifaces, " ") != "eth1 eth2" || len(other.EtcdEndpoints) != 2 || other.Guard != "off" || !other.IPMasq || other.EtcdPassword != "" {
		t.Errorf("got %+v", other)
	}
	for _, bad := range []string{"{", `{"guard":["a","b"]}`, `{"lease-ttl":["soon"]}`} {
		var n config.Node
		if err := config.FromRecord(allFlags(&n), []byte(bad)); err == nil {
			t.Errorf("record %s: no error", bad)
		}
	}
}

// A record read into fresh flags gives the same settings, whatever the values are.
func TestRecordOfFlagsReadsBack(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var n, back config.Node
		fs := allFlags(&n)
		texts := rapid.SliceOfN(rapid.StringMatching(`[a-z0-9"',\[\] ]{1,8}`), 1, 3)
		for _, flag := range []string{"iface", "iface-regex", "masq-exclude"} {
			if rapid.Bool().Draw(t, flag) {
				if err := fs.Lookup(flag).Value.(pflag.SliceValue).Replace(texts.Draw(t, flag+" values")); err != nil {
					t.Fatal(err)
				}
			}
		}
		n.SubnetFile = rapid.String().Draw(t, "subnet file")
		n.LeaseTTL = time.Duration(rapid.Int64Range(1, 1<<40).Draw(t, "ttl"))
		data, err := config.RecordFlags(fs)
		if err != nil {
			t.Fatal(err)
		}
		got := allFlags(&back)
		if err := config.FromRecord(got, data); err != nil {
			t.Fatal(err)
		}
		fs.VisitAll(func(f *pflag.Flag) {
			if other := got.Lookup(f.Name).Value.String(); other != f.Value.String() {
				t.Fatalf("--%s: %q reads back as %q", f.Name, f.Value, other)
			}
		})
	})
}

func FuzzFromRecord(f *testing.F) {
	f.Add([]byte(`{"guard":["warn"],"iface":["a","b"]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		var n config.Node
		fs := allFlags(&n)
		if config.FromRecord(fs, data) == nil {
			_, _ = n.Parse() // it must not panic on any text
		}
	})
}

// Kubernetes' variables for a service have IPv6 addresses without brackets (D15).
func TestEndpointOfABareIPv6AddressGetsItsBrackets(t *testing.T) {
	for given, want := range map[string]string{
		"https://fd00::1:2379":    "https://[fd00::1]:2379",
		"https://[fd00::1]:2379":  "https://[fd00::1]:2379",
		"http://192.0.2.1:2379":   "http://192.0.2.1:2379",
		"http://store.local:2379": "http://store.local:2379",
		"http://store.local":      "http://store.local",
		"unix://run/etcd.sock":    "unix://run/etcd.sock",
	} {
		n := config.Node{EtcdEndpoints: []string{given}}
		if got := n.Etcd().Endpoints[0]; got != want {
			t.Errorf("%s: got %s, want %s", given, got, want)
		}
	}
}

func TestOffloadsOfTheEngineAreASet(t *testing.T) {
	for _, c := range []struct {
		args []string
		want string
		fine bool
	}{
		{nil, "", true},
		{[]string{"--engine-no-offload=udp-tx,tun-rx", "--engine-no-offload=tun-rx"}, "tun-rx,udp-tx", true},
		{[]string{"--engine-no-offload=tun-rx", "--engine=wireguard-go"}, "", false},
		{[]string{"--engine-no-offload=tun-rx", "--engine=kernel"}, "", false},
	} {
		n := config.Node{}
		if err := allFlags(&n).Parse(append([]string{"--node-name=a"}, c.args...)); err != nil {
			t.Fatal(err)
		}
		s, err := n.Parse()
		if (err == nil) != c.fine || c.fine && s.NoOffload != c.want {
			t.Errorf("%v: got %q, %v; want %q", c.args, s.NoOffload, err, c.want)
		}
	}
}
