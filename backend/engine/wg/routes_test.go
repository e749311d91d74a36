package wg

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// TestRoutingFollowsEveryRequest compares cryptokey routing and the listing with a map from
// prefix to peer, after random requests.
func TestRoutingFollowsEveryRequest(t *testing.T) {
	prefixes := []string{"10.0.0.0/8", "10.1.0.0/16", "10.1.2.0/24", "10.1.2.3/32", "0.0.0.0/0", "fd00::/8", "fd00:1::/32"}
	probes := []string{"10.1.2.3", "10.1.2.9", "10.1.9.9", "10.9.9.9", "192.0.2.1", "fd00:1::1", "fd00:2::1"}
	rapid.Check(t, func(t *rapid.T) {
		d, model := idle(), map[netip.Prefix]string{}
		for range rapid.IntRange(1, 30).Draw(t, "requests") {
			k := key(rapid.IntRange(1, 4).Draw(t, "peer"))
			lines := "public_key=" + k + "\n"
			wipe := func() {
				for prefix, owner := range model {
					if owner == k {
						delete(model, prefix)
					}
				}
			}
			prefix := rapid.SampledFrom(prefixes).Draw(t, "prefix")
			parsed := netip.MustParsePrefix(prefix)
			switch rapid.SampledFrom([]string{"add", "add", "add", "minus", "replace", "remove"}).Draw(t, "verb") {
			case "add":
				lines += "allowed_ip=" + prefix + "\n"
				model[parsed] = k
			case "minus":
				lines += "allowed_ip=-" + prefix + "\n"
				if model[parsed] == k {
					delete(model, parsed)
				}
			case "replace":
				lines += "replace_allowed_ips=true\nallowed_ip=" + prefix + "\n"
				wipe()
				model[parsed] = k
			case "remove":
				lines += "remove=true\n"
				wipe()
			}
			if err := configure(d, lines); err != nil {
				t.Fatal(err)
			}
		}
		for _, probe := range probes {
			a := netip.MustParseAddr(probe)
			want, bits := "", -1
			for prefix, owner := range model {
				if prefix.Contains(a) && prefix.Bits() > bits {
					want, bits = owner, prefix.Bits()
				}
			}
			got := ""
			if p := d.routes.lookup(a); p != nil {
				got = p.PublicKey().Hex()
			}
			if got != want {
				t.Fatalf("%s goes to %q, want %q", probe, got, want)
			}
		}
		listed := 0
		for _, p := range d.peers {
			for _, prefix := range p.allowed {
				listed++
				if model[prefix] != p.PublicKey().Hex() {
					t.Fatalf("%s is listed of the wrong peer", prefix)
				}
			}
		}
		if listed != len(model) {
			t.Fatalf("%d prefixes listed, want %d", listed, len(model))
		}
	})
}

func TestManyPeersAreCheap(t *testing.T) {
	const peers = 10_000
	d := idle()
	var request strings.Builder
	for n := range peers {
		fmt.Fprintf(&request, "public_key=%s\nendpoint=192.0.2.1:51820\nallowed_ip=10.%d.%d.0/24\nallowed_ip=fd00:%x::/64\n", key(n+1), n>>8, n&255, n)
	}
	if err := configure(d, request.String()); err != nil {
		t.Fatal(err)
	}
	if p := d.routes.lookup(netip.MustParseAddr("10.3.7.1")); p == nil || p.PublicKey().Hex() != key(3<<8+7+1) {
		t.Error("routed to the wrong peer")
	}
	for _, p := range d.peers {
		if p.timer != nil || !p.Idle() {
			t.Fatal("an idle peer has a timer or handshake state")
		}
	}
	change := "public_key=" + key(77) + "\nreplace_allowed_ips=true\nallowed_ip=172.16.0.0/24\n"
	if err := configure(d, change); err != nil {
		t.Fatal(err)
	}
	if got := strings.Count(described(t, d), "public_key="); got != peers {
		t.Errorf("%d peers listed", got)
	}
}
