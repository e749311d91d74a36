package subnet_test

import (
	"net/netip"
	"strings"
	"testing"

	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"
	"pgregory.net/rapid"

	"github.com/loden-net/loden/config/opt"
	"github.com/loden-net/loden/subnet"
)

func prefix4(t *rapid.T) netip.Prefix {
	a := netip.AddrFrom4([4]byte(rapid.SliceOfN(rapid.Byte(), 4, 4).Draw(t, "v4")))
	return netip.PrefixFrom(a, rapid.IntRange(1, 32).Draw(t, "bits4")).Masked()
}

func prefix6(t *rapid.T) netip.Prefix {
	b := rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "v6")
	b[0] = 0xfd // never IPv4-mapped
	return netip.PrefixFrom(netip.AddrFrom16([16]byte(b)), rapid.IntRange(8, 128).Draw(t, "bits6")).Masked()
}

func dual(t *rapid.T) opt.Dual[netip.Prefix] {
	var d opt.Dual[netip.Prefix]
	which := rapid.IntRange(1, 3).Draw(t, "families")
	if which&1 != 0 {
		d = d.With(opt.V4, prefix4(t))
	}
	if which&2 != 0 {
		d = d.With(opt.V6, prefix6(t))
	}
	return d
}

// lease draws any lease that a node of ours can hold.
func lease(t *rapid.T) subnet.Lease {
	l := subnet.Lease{
		Node: rapid.StringMatching(`[a-z0-9]([a-z0-9._-]{0,20}[a-z0-9])?`).Draw(t, "node"), Subnets: dual(t),
		Claimed: rapid.Int64Min(0).Draw(t, "claimed"), Reserved: rapid.Bool().Draw(t, "reserved"), Leaving: rapid.Bool().Draw(t, "leaving"),
	}
	copy(l.Key[:], rapid.SliceOfN(rapid.Byte(), 32, 32).Draw(t, "key"))
	l.Key[31] |= 1
	which := rapid.IntRange(1, 3).Draw(t, "endpoints")
	port := rapid.Uint16Min(1)
	if which&1 != 0 {
		a := prefix4(t).Addr().Next()
		l.Endpoints = l.Endpoints.With(opt.V4, netip.AddrPortFrom(a, port.Draw(t, "port4")))
	}
	if which&2 != 0 {
		a := prefix6(t).Addr()
		l.Endpoints = l.Endpoints.With(opt.V6, netip.AddrPortFrom(a, port.Draw(t, "port6")))
	}
	return l
}

func TestKeyReadsBackWhatWasWritten(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		d := dual(t)
		got, err := subnet.ParseKey(subnet.FormatKey(d))
		if err != nil || got != d {
			t.Fatalf("%v: got %v, %v", d, got, err)
		}
	})
}

func TestValueReadsBackWhatWasWritten(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		l := lease(t)
		value := subnet.FormatValue(l)
		got, err := subnet.ParseValue(l.Subnets, value)
		if err != nil || got != l {
			t.Fatalf("%s\n got %+v, %v\nwant %+v", value, got, err, l)
		}
	})
}

func TestKeyForms(t *testing.T) {
	good := []string{"10.5.1.0-24", "10.5.1.0-24&fc00:0:0:1::-64", "fd00::-64", "10.0.0.0-8", "10.1.2.3-32"}
	for _, key := range good {
		d, err := subnet.ParseKey(key)
		if err != nil || subnet.FormatKey(d) != key {
			t.Errorf("%q: got %v (%q), %v", key, d, subnet.FormatKey(d), err)
		}
	}
	bad := map[string]string{
		"empty": "", "no length": "10.5.1.0", "length 0": "0.0.0.0-0", "flannel's IPv6-only": "0.0.0.0-0&fd00::-64",
		"host bits": "10.5.1.7-24", "leading zero": "10.5.01.0-24", "length with sign": "10.5.1.0-+24",
		"long form of IPv6": "10.5.1.0-24&fc00:0:0:1:0:0:0:0-64", "upper case": "FC00::-64", "mapped": "::ffff:10.5.1.0-120",
		"zone": "fe80::%eth0-64", "too long": "10.5.1.0-33", "IPv6 first": "fc00::-64&10.5.1.0-24", "two of IPv4": "10.5.1.0-24&10.5.2.0-24",
		"two of IPv6": "fc00::-64&fd00::-64", "three": "10.5.1.0-24&fc00::-64&fd00::-64", "another word": "hello", "slash": "10.5.1.0/24",
		"length with zero": "10.5.1.0-024", "endless": strings.Repeat("9", 1<<20),
	}
	for name, key := range bad {
		if d, err := subnet.ParseKey(key); err == nil {
			t.Errorf("%s: %q read as %v", name, key, d)
		} else if len(err.Error()) > 500 {
			t.Errorf("%s: error of %d bytes", name, len(err.Error()))
		}
	}
}

func key(fill byte) wgtypes.Key {
	var k wgtypes.Key
	for i := range k {
		k[i] = fill
	}
	return k
}

func endpoint(s string) opt.Option[netip.AddrPort] { return opt.Some(netip.MustParseAddrPort(s)) }

func mustKey(t testing.TB, s string) opt.Dual[netip.Prefix] {
	t.Helper()
	d, err := subnet.ParseKey(s)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func TestValueHasFlannelsMembersInFlannelsOrder(t *testing.T) {
	k := key(7).String()
	cases := map[string]struct {
		lease subnet.Lease
		want  string
	}{
		"IPv4": {
			subnet.Lease{Subnets: mustKey(t, "10.5.1.0-24"), Endpoints: opt.Dual[netip.AddrPort]{V4: endpoint("1.2.3.4:51820")}, Key: key(7)},
			`{"PublicIP":"1.2.3.4","PublicIPv6":null,"BackendType":"wireguard","BackendData":{"PublicKey":"` + k + `","Port":51820}}`,
		},
		"dual stack, two ports": {
			subnet.Lease{Subnets: mustKey(t, "10.5.1.0-24&fc00::-64"), Endpoints: opt.Dual[netip.AddrPort]{V4: endpoint("1.2.3.4:51820"), V6: endpoint("[2001:db8::4]:51821")}, Key: key(7)},
			`{"PublicIP":"1.2.3.4","PublicIPv6":"2001:db8::4","BackendType":"wireguard","BackendData":{"PublicKey":"` + k + `","Port":51820},"BackendV6Data":{"PublicKey":"` + k + `","Port":51821}}`,
		},
		"IPv6 only": {
			subnet.Lease{Subnets: mustKey(t, "fc00::-64"), Endpoints: opt.Dual[netip.AddrPort]{V6: endpoint("[2001:db8::4]:51820")}, Key: key(7)},
			`{"PublicIP":"0.0.0.0","PublicIPv6":"2001:db8::4","BackendType":"wireguard","BackendV6Data":{"PublicKey":"` + k + `","Port":51820}}`,
		},
		"IPv4 overlay over an IPv6 underlay": {
			subnet.Lease{Subnets: mustKey(t, "10.5.1.0-24"), Endpoints: opt.Dual[netip.AddrPort]{V6: endpoint("[2001:db8::4]:51820")}, Key: key(7), Node: "a"},
			`{"PublicIP":"0.0.0.0","PublicIPv6":"2001:db8::4","BackendType":"wireguard","BackendData":{"PublicKey":"` + k + `","Port":51820},"Node":"a"}`,
		},
		"two ports where flannel has room for one": {
			subnet.Lease{Subnets: mustKey(t, "10.5.1.0-24"), Endpoints: opt.Dual[netip.AddrPort]{V4: endpoint("1.2.3.4:1"), V6: endpoint("[2001:db8::4]:2")}, Key: key(7), Node: "a"},
			`{"PublicIP":"1.2.3.4","PublicIPv6":"2001:db8::4","BackendType":"wireguard","BackendData":{"PublicKey":"` + k + `","Port":1},"Node":"a","PortV6":2}`,
		},
		"reservation": {
			subnet.Lease{Subnets: mustKey(t, "10.5.1.0-24"), Node: "a", Reserved: true},
			`{"PublicIP":"0.0.0.0","PublicIPv6":null,"Node":"a","Reserved":true}`,
		},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			if got := string(subnet.FormatValue(tc.lease)); got != tc.want {
				t.Errorf("\n got %s\nwant %s", got, tc.want)
			}
			if got, err := subnet.ParseValue(tc.lease.Subnets, []byte(tc.want)); err != nil || got != tc.lease {
				t.Errorf("read back: %+v, %v", got, err)
			}
		})
	}
}

func TestValueRefusesWhatIsNoLease(t *testing.T) {
	k := key(7).String()
	cases := map[string]struct{ value, reason string }{
		"not JSON":           {`{`, "not a lease"},
		"an array":           {`[]`, "not a lease"},
		"other backend":      {`{"PublicIP":"1.2.3.4","BackendType":"vxlan","BackendData":{"VNI":1}}`, `"vxlan"`},
		"key too short":      {`{"PublicIP":"1.2.3.4","BackendType":"wireguard","BackendData":{"PublicKey":"AAAA","Port":1}}`, "public key"},
		"key not base64":     {`{"PublicIP":"1.2.3.4","BackendType":"wireguard","BackendData":{"PublicKey":"@","Port":1}}`, "public key"},
		"no key":             {`{"PublicIP":"1.2.3.4","BackendType":"wireguard"}`, "public key is missing"},
		"all-zero key":       {`{"PublicIP":"1.2.3.4","BackendType":"wireguard","BackendData":{"PublicKey":"` + (wgtypes.Key{}).String() + `","Port":1}}`, "missing"},
		"two keys":           {`{"PublicIP":"1.2.3.4","BackendType":"wireguard","BackendData":{"PublicKey":"` + k + `","Port":1},"BackendV6Data":{"PublicKey":"` + key(8).String() + `","Port":1}}`, "differ"},
		"PublicIP a name":    {`{"PublicIP":"host","BackendType":"wireguard","BackendData":{"PublicKey":"` + k + `","Port":1}}`, "PublicIP"},
		"PublicIP of IPv6":   {`{"PublicIP":"::1","BackendType":"wireguard","BackendData":{"PublicKey":"` + k + `","Port":1}}`, "PublicIP"},
		"PublicIPv6 of IPv4": {`{"PublicIPv6":"1.2.3.4","BackendType":"wireguard","BackendData":{"PublicKey":"` + k + `","Port":1}}`, "PublicIPv6"},
		"port too large":     {`{"PublicIP":"1.2.3.4","BackendType":"wireguard","BackendData":{"PublicKey":"` + k + `","Port":65536}}`, "not a lease"},
		"escape in a name":   {`{"PublicIP":"1.2.3.4","BackendType":"wireguard","BackendData":{"PublicKey":"` + k + `","Port":1},"Node":"\u001b[2J"}`, "node name"},
		"endless":            {`{"PublicIP":"1.2.3.4"` + strings.Repeat(" ", 1<<20) + `}`, "longer"},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			l, err := subnet.ParseValue(mustKey(t, "10.5.1.0-24"), []byte(tc.value))
			if err == nil || !strings.Contains(err.Error(), tc.reason) {
				t.Errorf("got %+v, %v; want an error about %q", l, err, tc.reason)
			}
		})
	}
}

func TestValueIgnoresMembersItDoesNotKnow(t *testing.T) {
	l, err := subnet.ParseValue(mustKey(t, "10.5.1.0-24"), []byte(`{"publicip":"1.2.3.4","BackendType":"wireguard","BackendData":{"PublicKey":"`+
		key(7).String()+`","Port":51820,"MTU":1420},"Future":{"x":[1]}}`))
	if err != nil || l.Key != key(7) || l.Endpoints.V4 != endpoint("1.2.3.4:51820") {
		t.Errorf("got %+v, %v", l, err)
	}
}

func FuzzKey(f *testing.F) {
	for _, s := range []string{"", "10.5.1.0-24", "10.5.1.0-24&fc00::-64", "fd00::-64", "0.0.0.0-0&fd00::-64", "&", "-", "10.5.1.0-24&"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, key string) {
		d, err := subnet.ParseKey(key)
		if err != nil {
			if d != (opt.Dual[netip.Prefix]{}) {
				t.Fatalf("%q: error %v and yet %v", key, err, d)
			}
			return
		}
		if got := subnet.FormatKey(d); got != key {
			t.Fatalf("%q reads as %v, which writes %q", key, d, got)
		}
	})
}

func FuzzValue(f *testing.F) {
	for _, s := range []string{
		`{"PublicIP":"1.2.3.4","PublicIPv6":null}`, `{}`, `null`, `{"Reserved":true,"Node":"a"}`,
		`{"PublicIP":"1.2.3.4","PublicIPv6":"2001:db8::4","BackendType":"wireguard","BackendData":{"PublicKey":"BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=","Port":51820},"BackendV6Data":{"PublicKey":"BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=","Port":51821},"Node":"a","Claimed":1,"PortV6":3}`,
	} {
		f.Add([]byte(s))
	}
	subnets := mustKey(f, "10.5.1.0-24&fc00::-64")
	f.Fuzz(func(t *testing.T, data []byte) {
		l, err := subnet.ParseValue(subnets, data)
		if err != nil {
			return
		}
		again, err := subnet.ParseValue(subnets, subnet.FormatValue(l))
		if err != nil {
			t.Fatalf("%+v does not read back: %v", l, err)
		}
		// A port of a lease without a key has nowhere to stand.
		if l.Key != (wgtypes.Key{}) && again != l {
			t.Fatalf("read %+v, read back %+v", l, again)
		}
	})
}
