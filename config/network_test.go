package config_test

import (
	"encoding/json"
	"fmt"
	"math/big"
	"net/netip"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/loden-net/loden/config"
	"github.com/loden-net/loden/config/opt"
	"github.com/loden-net/loden/test/sandbox/linediff"
)

// must makes a compile-time check of comparability (a linker bug forbids the reflective one).
func must[T comparable]() {}

var _ = []func(){must[config.Network], must[config.Env], must[opt.Dual[netip.Prefix]]}

func TestNetworkDefaultsAreFlannels(t *testing.T) {
	for _, tt := range []struct{ name, doc, want string }{
		{"IPv4 /16", `{"Network":"10.3.0.0/16"}`, "10.3.0.0/16 24 10.3.1.0 10.3.255.0"},
		{"keys in any case, unknown ones ignored", `{"network":"10.3.9.9/16","Colour":"green"}`, "10.3.0.0/16 24 10.3.1.0 10.3.255.0"},
		{"at /22 still /24", `{"Network":"10.3.0.0/22"}`, "10.3.0.0/22 24 10.3.1.0 10.3.3.0"},
		{"below /22 two bits more", `{"Network":"10.3.0.0/23"}`, "10.3.0.0/23 25 10.3.0.128 10.3.1.128"},
		{"smallest", `{"Network":"10.3.0.0/28"}`, "10.3.0.0/28 30 10.3.0.4 10.3.0.12"},
		{"given", `{"Network":"10.3.0.0/16","SubnetLen":28,"SubnetMin":"10.3.5.0","SubnetMax":"10.3.8.0"}`, "10.3.0.0/16 28 10.3.5.0 10.3.8.0"},
		{"IPv6 alone", `{"EnableIPv4":false,"EnableIPv6":true,"IPv6Network":"fc00::/48"}`, "fc00::/48 64 fc00:0:0:1:: fc00:0:0:ffff::"},
		{"IPv6 below /62", `{"EnableIPv4":false,"enableIPv6":true,"ipv6Network":"fc00::/120"}`, "fc00::/120 122 fc00::40 fc00::c0"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			n, err := config.ParseNetwork([]byte(tt.doc))
			if err != nil {
				t.Fatal(err)
			}
			for _, r := range n.Ranges.All() {
				if got := fmt.Sprint(r.Network, r.SubnetLen, r.SubnetMin, r.SubnetMax); strings.Join(strings.Fields(got), " ") != tt.want {
					t.Errorf("got %s, want %s", got, tt.want)
				}
			}
			if n.Backend.ListenPort != 51820 || n.Backend.Mode != config.ModeAuto {
				t.Errorf("backend: got %+v", n.Backend)
			}
		})
	}
}

func TestNetworkErrorsSayWhatToDo(t *testing.T) {
	v6 := func(s string) string { return `{"EnableIPv4":false,"EnableIPv6":true,` + s + `}` }
	for _, tt := range []struct{ name, doc, want string }{
		{"not JSON", `{`, "read network document"},
		{"no network", `{}`, "please define a correct Network parameter in the flannel config"},
		{"unspecified network", `{"Network":"0.0.0.0/0"}`, "please define a correct Network parameter in the flannel config"},
		{"loopback", `{"Network":"127.0.0.0/16"}`, "Network 127.0.0.0/16 overlaps 127.0.0.0/8, which is loopback (RFC 1122): give a private range, for example 10.244.0.0/16"},
		{"this host", `{"Network":"0.0.0.0/8"}`, "overlaps 0.0.0.0/8"},
		{"link-local", `{"Network":"169.254.128.0/20"}`, "overlaps 169.254.0.0/16"},
		{"multicast", `{"Network":"239.0.0.0/16"}`, "overlaps 224.0.0.0/4"},
		{"reserved", `{"Network":"250.0.0.0/16"}`, "overlaps 240.0.0.0/4"},
		{"half the world", `{"Network":"128.0.0.0/1"}`, "overlaps 169.254.0.0/16"},
		{"an eighth of the world", `{"Network":"128.0.0.0/3"}`, "Network 128.0.0.0/3 is larger than a /8"},
		{"larger than the private range", `{"Network":"10.0.0.0/7"}`, "is larger than a /8"},
		{"IPv6 loopback", v6(`"IPv6Network":"::/64"`), "overlaps ::/8"},
		{"IPv6 translated", v6(`"IPv6Network":"64:ff9b::/96"`), "overlaps ::/8"},
		{"IPv6 link-local", v6(`"IPv6Network":"fe80::/48"`), "overlaps fe80::/10"},
		{"IPv6 multicast", v6(`"IPv6Network":"ff05::/48"`), "overlaps ff00::/8"},
		{"the public IPv6 Internet", v6(`"IPv6Network":"2000::/3"`), "IPv6Network 2000::/3 is larger than a /16"},
		{"IPv6 in Network", `{"Network":"fc00::/48"}`, "invalid IPv4 CIDR format"},
		{"IPv4 in IPv6Network", v6(`"IPv6Network":"10.0.0.0/8"`), "invalid IPv6 CIDR format"},
		{"no IPv6 network", v6(`"SubnetLen":24`), "please define a correct IPv6Network parameter in the flannel config"},
		{"SubnetLen too long", `{"Network":"10.0.0.0/16","SubnetLen":31}`, "SubnetLen must be less than /31"},
		{"SubnetLen too short", `{"Network":"10.0.0.0/16","SubnetLen":17}`, "network must be able to accommodate at least four subnets"},
		{"IPv6SubnetLen too long", v6(`"IPv6Network":"fc00::/48","IPv6SubnetLen":127`), "SubnetLen must be less than /127"},
		{"too small", `{"Network":"10.0.0.0/29"}`, "network is too small. Minimum useful network prefix is /28"},
		{"IPv6 too small", v6(`"IPv6Network":"fc00::/125"`), "IPv6Network is too small. Minimum useful network prefix is /124"},
		{"min outside", `{"Network":"10.0.0.0/16","SubnetMin":"10.1.0.0"}`, "SubnetMin is not in the range of the Network"},
		{"max outside", `{"Network":"10.0.0.0/16","SubnetMax":"10.1.0.0"}`, "SubnetMax is not in the range of the Network"},
		{"IPv6 min outside", v6(`"IPv6Network":"fc00::/48","IPv6SubnetMin":"fc01::"`), "IPv6SubnetMin is not in the range of the IPv6Network"},
		{"not aligned", `{"Network":"10.0.0.0/16","SubnetMin":"10.0.1.16"}`, "SubnetMin is not on a SubnetLen boundary: 10.0.1.16"},
		{"min above max", `{"Network":"10.0.0.0/16","SubnetMin":"10.0.9.0","SubnetMax":"10.0.2.0"}`, "SubnetMin 10.0.9.0 is above SubnetMax 10.0.2.0"},
		{"min of the other family", `{"Network":"10.0.0.0/16","SubnetMin":"fc00::"}`, `SubnetMin "fc00::" is not an IPv4 address`},
		{"fewer IPv6 subnets", `{"EnableIPv6":true,"Network":"10.0.0.0/16","IPv6Network":"fc00::/60"}`, "IPv6Network holds 15 subnets, fewer than the 255 of Network"},
		{"no family", `{"EnableIPv4":false}`, "switch at least one on"},
		{"other backend", `{"Network":"10.0.0.0/16","Backend":{"Type":"vxlan"}}`, `unknown Backend.Type "vxlan"`},
		{"backend without type", `{"Network":"10.0.0.0/16","Backend":{}}`, `unknown Backend.Type ""`},
		{"bad mode", `{"Network":"10.0.0.0/16","Backend":{"Type":"wireguard","Mode":"both"}}`, "no valid Mode configured"},
		{"bad port", `{"Network":"10.0.0.0/16","Backend":{"Type":"wireguard","ListenPort":70000}}`, "Backend.ListenPort 70000"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if _, err := config.ParseNetwork([]byte(tt.doc)); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
		})
	}
}

func TestPresharedKeyNeverPrints(t *testing.T) {
	const key = "AQIDBAUGBwgJCgsMDQ4PEBESExQVFhcYGRobHB0eHyA="
	doc := func(psk string) []byte {
		return []byte(`{"Network":"10.0.0.0/16","Backend":{"Type":"wireguard","PSK":"` + psk + `"}}`)
	}
	n, err := config.ParseNetwork(doc(key))
	if err != nil {
		t.Fatal(err)
	}
	out, err := json.Marshal(n)
	if err != nil {
		t.Fatal(err)
	}
	_, err = config.ParseNetwork(doc(key[:20]))
	for _, text := range []string{string(out), fmt.Sprintf("%v %+v %#v", n, n, n), err.Error()} {
		if strings.Contains(text, key[:12]) || strings.Contains(text, "1, 2, 3, 4") || strings.Contains(text, "0x1, 0x2, 0x3") {
			t.Errorf("the key is in %s", text)
		}
	}
}

func TestEffectiveDocumentReadsBackAsItself(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		bits := rapid.IntRange(8, 28).Draw(t, "bits")
		bits6 := rapid.IntRange(16, 64).Draw(t, "bits6")
		doc := fmt.Sprintf(`{"EnableIPv6":true,"Network":"10.1.2.3/%d","IPv6Network":"fd12:3456::/%d","IPv6SubnetLen":%d}`, bits, bits6, min(126, bits6+30))
		n, err := config.ParseNetwork([]byte(doc))
		if err != nil {
			t.Fatalf("%s: %v", doc, err)
		}
		out, err := json.Marshal(n)
		if err != nil {
			t.Fatal(err)
		}
		again, err := config.ParseNetwork(out)
		if err != nil {
			t.Fatalf("%s: %v", out, err)
		}
		if again != n {
			t.Fatal(linediff.Of(fmt.Sprint(n), fmt.Sprint(again)))
		}
	})
}

// The slow, obvious way: count subnets one after another.
func TestCapacityAndContainsAgreeWithCounting(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		bits := rapid.IntRange(16, 24).Draw(t, "bits")
		length := bits + rapid.IntRange(2, 6).Draw(t, "more")
		n, err := config.ParseNetwork(fmt.Appendf(nil, `{"Network":"10.7.0.0/%d","SubnetLen":%d}`, bits, length))
		if err != nil {
			t.Fatal(err)
		}
		r, _ := n.Ranges.V4.Get()
		count := int64(0)
		for a := r.Network.Addr(); r.Network.Contains(a); {
			p := netip.PrefixFrom(a, length)
			want := a != r.Network.Addr()
			if r.Contains(p) != want {
				t.Fatalf("Contains(%s) = %v", p, !want)
			}
			if want {
				count++
			}
			for range 1 << (32 - length) {
				a = a.Next()
			}
		}
		if r.Capacity().Cmp(big.NewInt(count)) != 0 {
			t.Fatalf("capacity %s, counted %d", r.Capacity(), count)
		}
	})
}

func FuzzParseNetwork(f *testing.F) {
	f.Add([]byte(`{"Network":"10.3.0.0/16","EnableIPv6":true,"IPv6Network":"fc00::/48","Backend":{"Type":"wireguard","PSK":"x"}}`))
	f.Add([]byte(`{"SubnetLen":-1,"Network":"1.2.3.4/32"}`))
	f.Add([]byte(`null`))
	f.Fuzz(func(t *testing.T, data []byte) {
		n, err := config.ParseNetwork(data)
		if err != nil {
			return
		}
		for fam, r := range n.Ranges.All() {
			for _, a := range []netip.Addr{r.SubnetMin, r.SubnetMax} {
				if opt.FamilyOf(a) != fam || !r.Contains(netip.PrefixFrom(a, r.SubnetLen)) {
					t.Errorf("%s: bound %s outside its own range %+v", data, a, r)
				}
			}
		}
	})
}

// The largest ranges that people use.
func TestPrivateAndPublicRangesOfReasonableSizeAreNetworks(t *testing.T) {
	for _, doc := range []string{
		`{"Network":"10.0.0.0/8"}`, `{"Network":"100.64.0.0/10"}`, `{"Network":"172.16.0.0/12"}`, `{"Network":"192.168.0.0/16"}`,
		`{"Network":"203.0.113.0/24"}`, `{"Network":"198.18.0.0/15"}`, `{"Network":"11.0.0.0/8"}`,
		`{"EnableIPv4":false,"EnableIPv6":true,"IPv6Network":"fd00::/8"}`, `{"EnableIPv4":false,"EnableIPv6":true,"IPv6Network":"2001:db8::/32"}`,
		`{"EnableIPv4":false,"EnableIPv6":true,"IPv6Network":"2001:cafe:42::/56"}`,
	} {
		if _, err := config.ParseNetwork([]byte(doc)); err != nil {
			t.Errorf("%s: %v", doc, err)
		}
	}
}

func TestWarningsNameWhatHasNoEffect(t *testing.T) {
	for _, tt := range []struct{ name, doc, want string }{
		{"all right", `{"Network":"10.3.0.0/16","Backend":{"Type":"wireguard","MTU":1500}}`, ""},
		{"any case is right", `{"network":"10.3.0.0/16","backend":{"type":"wireguard"}}`, ""},
		{"a letter missing", `{"Netwrk":"10.3.0.0/16","Network":"10.3.0.0/16"}`, `member "Netwrk" is not known and has no effect: did you mean "Network"?`},
		{"letters swapped", `{"Network":"10.3.0.0/16","SubentLen":26}`, `member "SubentLen" is not known and has no effect: did you mean "SubnetLen"?`},
		{"in Backend", `{"Network":"10.3.0.0/16","Backend":{"Type":"wireguard","ListenPrt":1}}`, `member Backend."ListenPrt" is not known and has no effect: did you mean "ListenPort"?`},
		{"like no other", `{"Network":"10.3.0.0/16","Colour":"green"}`, `member "Colour" is not known and has no effect`},
		{"of another backend", `{"Network":"10.3.0.0/16","Backend":{"Type":"wireguard","VNI":1}}`, `member Backend."VNI" is not known and has no effect`},
		{"comments", `{"_comment":"x","#":"y","Network":"10.3.0.0/16"}`, ""},
		{"IPv6Network alone", `{"Network":"10.3.0.0/16","IPv6Network":"fc00::/48"}`, `IPv6Network has no effect, because IPv6 is off by default: add "EnableIPv6": true, or remove IPv6Network`},
		{"IPv6 switched off on purpose", `{"Network":"10.3.0.0/16","EnableIPv6":false,"IPv6Network":"fc00::/48"}`, ""},
		{"IPv4 off", `{"EnableIPv4":false,"Network":"10.3.0.0/16","EnableIPv6":true,"IPv6Network":"fc00::/48"}`, `Network has no effect, because EnableIPv4 is false: set EnableIPv4 to true, or remove Network`},
		{"not JSON", `{`, ""},
	} {
		if got := strings.Join(config.NetworkWarnings([]byte(tt.doc)), "\n"); got != tt.want {
			t.Errorf("%s:\n got %q\nwant %q", tt.name, got, tt.want)
		}
	}
}

// Warnings come for any text without a panic, in one line each, and never for a document
// that Loden wrote.
func FuzzNetworkWarnings(f *testing.F) {
	f.Add([]byte(`{"Netwrk":"10.3.0.0/16","Backend":{"x":1}}`))
	f.Add([]byte("{\"\\u001b[2J\":1}"))
	f.Fuzz(func(t *testing.T, data []byte) {
		for _, w := range config.NetworkWarnings(data) {
			if strings.ContainsAny(w, "\n\x1b") {
				t.Errorf("%q", w)
			}
		}
		n, err := config.ParseNetwork(data)
		if err != nil {
			return
		}
		own, err := n.MarshalJSON()
		if w := config.NetworkWarnings(own); err != nil || len(w) > 0 {
			t.Errorf("%s: %v, %v", own, w, err)
		}
	})
}
