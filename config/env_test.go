package config_test

import (
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/pflag"
	"pgregory.net/rapid"

	"github.com/loden-net/loden/config"
	"github.com/loden-net/loden/config/opt"
)

func TestEnvHasFlannelsForm(t *testing.T) {
	env := config.Env{
		Networks: opt.Dual[netip.Prefix]{V4: opt.Some(netip.MustParsePrefix("10.1.0.0/16")), V6: opt.Some(netip.MustParsePrefix("fc00::/48"))},
		Subnets:  opt.Dual[netip.Prefix]{V4: opt.Some(netip.MustParsePrefix("10.1.74.0/24")), V6: opt.Some(netip.MustParsePrefix("fc00:0:0:1::/64"))},
		MTU:      1420, Masq: true,
	}
	want := "FLANNEL_NETWORK=10.1.0.0/16\nFLANNEL_SUBNET=10.1.74.1/24\n" +
		"FLANNEL_IPV6_NETWORK=fc00::/48\nFLANNEL_IPV6_SUBNET=fc00:0:0:1::1/64\nFLANNEL_MTU=1420\nFLANNEL_IPMASQ=true\n"
	if got := string(env.Bytes()); got != want {
		t.Errorf("got:\n%s\nwant:\n%s", got, want)
	}
}

func TestGarbledEnvIsWorthWhatIsReadable(t *testing.T) {
	good := netip.MustParsePrefix("10.1.0.0/16")
	for _, tt := range []struct {
		name, text string
		network    opt.Option[netip.Prefix]
		fails      bool
	}{
		{"empty", "", opt.None[netip.Prefix](), false},
		{"truncated in the IPv6 part", "FLANNEL_NETWORK=10.1.0.0/16\nFLANNEL_IPV6_NETW", opt.Some(good), true},
		{"bad CIDR", "FLANNEL_NETWORK=10.1.0.0/77\n", opt.None[netip.Prefix](), true},
		{"wrong family", "FLANNEL_NETWORK=fc00::/48\n", opt.None[netip.Prefix](), true},
		{"a list", "FLANNEL_NETWORK=10.1.0.0/16,10.2.0.0/16\n", opt.None[netip.Prefix](), true},
		{"quoted", "FLANNEL_NETWORK=\"10.1.0.0/16\"\n", opt.Some(good), false},
		{"binary", "\x00\xff\xfe=\n\x01", opt.None[netip.Prefix](), true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			env, err := config.ParseEnv([]byte(tt.text))
			if env.Networks.V4 != tt.network || (err != nil) != tt.fails {
				t.Errorf("got %v, %v", env.Networks.V4, err)
			}
		})
	}
}

func TestEnvReadsBackAsItself(t *testing.T) {
	prefix := func(t *rapid.T, label string, bytes int) opt.Option[netip.Prefix] {
		if rapid.Bool().Draw(t, label+" absent") {
			return opt.None[netip.Prefix]()
		}
		raw := rapid.SliceOfN(rapid.Byte(), bytes, bytes).Draw(t, label)
		a, _ := netip.AddrFromSlice(raw)
		if a.Is4In6() {
			return opt.None[netip.Prefix]()
		}
		return opt.Some(netip.PrefixFrom(a, rapid.IntRange(8, 8*bytes-2).Draw(t, label+" bits")).Masked())
	}
	rapid.Check(t, func(t *rapid.T) {
		want := config.Env{
			Networks: opt.Dual[netip.Prefix]{V4: prefix(t, "network", 4), V6: prefix(t, "network6", 16)},
			Subnets:  opt.Dual[netip.Prefix]{V4: prefix(t, "subnet", 4), V6: prefix(t, "subnet6", 16)},
			MTU:      rapid.IntRange(0, 65535).Draw(t, "mtu"), Masq: rapid.Bool().Draw(t, "masq"),
		}
		if got, err := config.ParseEnv(want.Bytes()); err != nil || got != want {
			t.Fatalf("got %+v, %v, want %+v", got, err, want)
		}
	})
}

func TestLoadEnvTellsAbsentFromGarbled(t *testing.T) {
	path := filepath.Join(t.TempDir(), "subnet.env")
	if env, err := config.LoadEnv(path); err != nil || env.Present() {
		t.Errorf("absent: got %v, %v", env, err)
	}
	if err := os.WriteFile(path, []byte("rubbish"), 0o644); err != nil {
		t.Fatal(err)
	}
	if env, err := config.LoadEnv(path); err == nil || !env.Present() {
		t.Errorf("garbled: got %v, %v", env, err)
	}
}

func TestWriteFileReplacesWholeWithTheModeAsked(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "deep", "file")
	for _, mode := range []os.FileMode{0o600, 0o644} {
		if err := config.WriteFile(path, []byte("text"), mode, 0o755); err != nil {
			t.Fatal(err)
		}
		info, err := os.Stat(path)
		if err != nil || info.Mode().Perm() != mode {
			t.Errorf("mode %v, %v, want %v", info.Mode(), err, mode)
		}
	}
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil || len(entries) != 1 {
		t.Errorf("left beside the file: %v, %v", entries, err)
	}
	if err := config.WriteFile(filepath.Join(path, "below-a-file"), nil, 0o644, 0o755); err == nil {
		t.Error("no error for a path below a file")
	}
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
	if err := n.Validate(); err != nil {
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
		n.HostFlags(fs)
		n.RunFlags(fs)
		if err := fs.Parse(append([]string{"--node-name=a"}, args...)); err != nil {
			return err
		}
		return n.Validate()
	}
	for _, fine := range []string{"--node-name=a", "--node-name=node-1.example_net", "--node-name=" + strings.Repeat("a", 253)} {
		if err := set(fine); err != nil {
			t.Errorf("%s: got %v", fine, err)
		}
	}
	for _, bad := range []string{
		"--node-name=a b", "--node-name=-a", "--node-name=a.", "--node-name=ä", "--node-name=", "--node-name=" + strings.Repeat("a", 254), "--engine=fast", "--firewall=ufw", "--guard=maybe", "--ipv6-masq=yes", "--public-ip=fd00::1",
		"--public-ipv6=192.0.2.1", "--iface-regex=[", "--iface-can-reach=host", "--masq-exclude=10.0.0.0", "--lease-ttl=1s",
		"--resync=0s", "--listen-port=70000", "--masq-mark=0x4000", "--masq-mark=3/1", "--masq-mark=1/0", "--masq-mark=1/x", "--interface=a-name-that-is-too-long",
	} {
		flag, _, _ := strings.Cut(bad, "=")
		if err := set(bad); err == nil || !strings.Contains(err.Error(), flag) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: got %v", bad, err)
		}
	}
}

func FuzzParseEnv(f *testing.F) {
	f.Add([]byte("FLANNEL_NETWORK=10.1.0.0/16\nFLANNEL_IPV6_SUBNET=fc00::1/64\nFLANNEL_MTU=1420\nFLANNEL_IPMASQ=true\n"))
	f.Add([]byte("FLANNEL_SUBNET\n=\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		env, _ := config.ParseEnv(data)
		again, err := config.ParseEnv(env.Bytes())
		if err != nil || again != env {
			t.Errorf("%q: %+v reads back as %+v, %v", data, env, again, err)
		}
	})
}
