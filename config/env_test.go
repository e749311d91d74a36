package config_test

import (
	"net/netip"
	"os"
	"path/filepath"
	"testing"

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
