package backend

import (
	"fmt"
	"maps"
	"net/netip"
	"testing"
	"time"

	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"
	"pgregory.net/rapid"

	"github.com/loden-net/loden/config"
	"github.com/loden-net/loden/config/opt"
	"github.com/loden-net/loden/config/sorted"
)

// tunnelOf returns a WireGuard device in memory that holds the peers.
func tunnelOf(peers []livePeer) *fakeTunnel {
	t := newFakeTunnel()
	for _, p := range peers {
		for _, prefix := range p.prefixes {
			t.holder[prefix] = p.key
		}
		p.prefixes = nil
		t.peers[p.key] = &p
	}
	return t
}

var (
	testNow   = time.Unix(1_700_000_000, 0)
	testSpare = wgtypes.Key{255}
)

// editsOf compares without a record of publications.
func editsOf(live []livePeer, want Config) []edit {
	return comparison{live: live, want: want, now: testNow, spare: testSpare}.edits()
}

func TestEditsMakeTheDeviceAsWantedAndOnlyOnce(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		dev := tunnelOf(drawLive(t))
		want := drawWant(t)
		before := maps.Clone(dev.holder)
		claimed := map[netip.Prefix]wgtypes.Key{}
		for p := range want.Peers.All() {
			for _, prefix := range p.Subnets.All() {
				claimed[prefix] = p.Key
			}
		}
		for _, e := range editsOf(dev.list().peers, want) {
			dev.configure(peerConfig(e))
			for prefix, now := range claimed {
				if old, held := before[prefix]; held && dev.holder[prefix] != old && dev.holder[prefix] != now {
					t.Fatalf("%v leaves %v to %v, who should not have it, on its way to %v", prefix, old, dev.holder[prefix], now)
				}
			}
		}
		if !maps.Equal(dev.holder, claimed) {
			t.Fatalf("prefixes\ngot  %v\nwant %v", dev.holder, claimed)
		}
		if len(dev.peers) != want.Peers.Len() {
			t.Fatalf("%d peers, want %d", len(dev.peers), want.Peers.Len())
		}
		for p := range want.Peers.All() {
			got := dev.peers[p.Key]
			if got.psk != want.PresharedKey.Or(config.PresharedKey{}) || got.keepalive != wholeSeconds(p.Keepalive) {
				t.Fatalf("peer %v: %+v", p, got)
			}
		}
		if again := editsOf(dev.list().peers, want); len(again) > 0 {
			t.Fatalf("a second look finds %v", again)
		}
	})
}

// drawLive draws the peers of a device: few keys and prefixes, so that they meet.
func drawLive(t *rapid.T) []livePeer {
	var peers []livePeer
	prefixes := rapid.Permutation(testPrefixes()).Draw(t, "live prefixes")
	for _, i := range rapid.SliceOfNDistinct(rapid.IntRange(0, 7), 0, 8, rapid.ID[int]).Draw(t, "live") {
		p := livePeer{key: wgtypes.Key{byte(i)}, endpoint: drawEndpoint(t)}
		n := rapid.IntRange(0, min(3, len(prefixes))).Draw(t, "held")
		p.prefixes, prefixes = prefixes[:n:n], prefixes[n:]
		if rapid.Bool().Draw(t, "psk") {
			p.psk = config.PresharedKey{1}
		}
		p.keepalive = time.Duration(rapid.IntRange(0, 2).Draw(t, "keepalive")) * time.Second
		p.handshake = rapid.SampledFrom([]time.Time{{}, testNow, testNow.Add(-time.Hour)}).Draw(t, "handshake")
		peers = append(peers, p)
	}
	return peers
}

// drawWant draws a valid wish: no prefix twice.
func drawWant(t *rapid.T) Config {
	var want Config
	v4 := rapid.Permutation(testPrefixes()[:8]).Draw(t, "v4")
	v6 := rapid.Permutation(testPrefixes()[8:]).Draw(t, "v6")
	for i := range rapid.IntRange(0, 8).Draw(t, "peers") {
		p := Peer{Key: wgtypes.Key{byte(i)}, Endpoint: drawEndpoint(t)}
		if rapid.Bool().Draw(t, "has v4") {
			p.Subnets = p.Subnets.With(opt.V4, v4[i])
		}
		if rapid.Bool().Draw(t, "has v6") {
			p.Subnets = p.Subnets.With(opt.V6, v6[i])
		}
		p.Keepalive = time.Duration(rapid.IntRange(0, 2500).Draw(t, "keepalive ms")) * time.Millisecond
		want.Peers = want.Peers.With(p)
	}
	if rapid.Bool().Draw(t, "psk") {
		want.PresharedKey = opt.Some(config.PresharedKey{1})
	}
	return want
}

func drawEndpoint(t *rapid.T) netip.AddrPort {
	return rapid.SampledFrom([]netip.AddrPort{
		netip.MustParseAddrPort("192.0.2.1:1"), netip.MustParseAddrPort("192.0.2.1:2"), netip.MustParseAddrPort("[2001:db8::1]:1"),
	}).Draw(t, "endpoint")
}

func testPrefixes() []netip.Prefix {
	var out []netip.Prefix
	for i := range 8 {
		out = append(out, netip.MustParsePrefix(fmt.Sprintf("10.244.%d.0/24", i)))
	}
	for i := range 8 {
		out = append(out, netip.MustParsePrefix(fmt.Sprintf("fd44:%d::/64", i)))
	}
	return out
}

// thousand returns a device with a thousand peers, as wanted by the config.
func thousand() ([]livePeer, Config) {
	var live []livePeer
	var want Config
	for i := range 1000 {
		key := wgtypes.Key{byte(i >> 8), byte(i)}
		at := netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 0, byte(i >> 8), byte(i)}), 51820)
		v4 := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i >> 8), byte(i), 0}), 24)
		live = append(live, livePeer{key: key, endpoint: at, prefixes: []netip.Prefix{v4}})
		want.Peers = want.Peers.With(Peer{Key: key, Endpoint: at, Subnets: opt.Dual[netip.Prefix]{}.With(opt.V4, v4)})
	}
	return live, want
}

func TestOneChangedPeerInAThousandIsOneEdit(t *testing.T) {
	live, want := thousand()
	if edits := editsOf(live, want); len(edits) != 0 {
		t.Fatalf("nothing differs, yet: %d edits", len(edits))
	}
	changed := want.Peers.Slice()[500]
	changed.Keepalive = time.Second
	want.Peers = want.Peers.With(changed)
	edits := editsOf(live, want)
	if len(edits) != 1 || edits[0].key != changed.Key || edits[0].endpoint.Present() || edits[0].gain != nil {
		t.Fatalf("got %+v", edits)
	}
	if c := peerConfig(edits[0]); c.ReplaceAllowedIPs || !c.UpdateOnly || c.PresharedKey != nil || c.Endpoint != nil {
		t.Fatalf("sent: %+v", c)
	}
}

func TestNoEditEverReplacesAllowedIPs(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		for _, e := range editsOf(drawLive(t), drawWant(t)) {
			if peerConfig(e).ReplaceAllowedIPs {
				t.Fatalf("%+v", e)
			}
		}
	})
}

func TestLearnedEndpointIsKeptWhileHandshakesAreFresh(t *testing.T) {
	published := netip.MustParseAddrPort("192.0.2.1:51820")
	learned := netip.MustParseAddrPort("198.51.100.7:4242")
	for name, c := range map[string]struct {
		live      netip.AddrPort
		exists    bool
		handshake time.Time
		written   bool
	}{
		"a new peer":                        {written: true},
		"the same endpoint, no handshake":   {live: published, exists: true},
		"learned, handshake a moment ago":   {live: learned, exists: true, handshake: testNow.Add(-time.Second)},
		"learned, handshake 179 s ago":      {live: learned, exists: true, handshake: testNow.Add(-179 * time.Second)},
		"learned, handshake 180 s ago":      {live: learned, exists: true, handshake: testNow.Add(-180 * time.Second), written: true},
		"learned, never a handshake":        {live: learned, exists: true, written: true},
		"learned, handshake in the future":  {live: learned, exists: true, handshake: testNow.Add(time.Hour), written: true},
		"none, though there is a handshake": {exists: true, handshake: testNow, written: true},
	} {
		t.Run(name, func(t *testing.T) {
			var live []livePeer
			if c.exists {
				live = []livePeer{{key: wgtypes.Key{1}, endpoint: c.live, handshake: c.handshake}}
			}
			edits := editsOf(live, Config{Peers: sorted.Of(Peer{Key: wgtypes.Key{1}, Endpoint: published})})
			written := len(edits) == 1 && edits[0].endpoint == opt.Some(published)
			if written != c.written {
				t.Errorf("endpoint written: %t, want %t (%+v)", written, c.written, edits)
			}
		})
	}
}

func TestNewPublicationIsFollowedAtOnceAndARoamedEndpointStaysAgainstAnOld(t *testing.T) {
	first, second := netip.MustParseAddrPort("192.0.2.1:51820"), netip.MustParseAddrPort("192.0.2.2:51900")
	learned := netip.MustParseAddrPort("198.51.100.7:4242")
	for name, c := range map[string]struct {
		live, last, want netip.AddrPort
		written          bool
	}{
		"a new address":                    {live: first, last: first, want: second, written: true},
		"roamed, the publication is old":   {live: learned, last: first, want: first},
		"roamed, then a new publication":   {live: learned, last: first, want: second, written: true},
		"roamed to the new publication":    {live: second, last: first, want: second},
		"roamed, no record: an older node": {live: learned, want: second},
	} {
		t.Run(name, func(t *testing.T) {
			old := livePeer{key: key(1), endpoint: c.live, handshake: testNow.Add(-time.Second)}
			compared := comparison{live: []livePeer{old}, want: Config{Peers: sorted.Of(Peer{Key: key(1), Endpoint: c.want})}, published: endpoints{}, now: testNow, spare: testSpare}
			if c.last.IsValid() {
				compared.published[key(1)] = c.last
			}
			edits := compared.edits()
			if written := len(edits) == 1 && edits[0].endpoint == opt.Some(c.want); written != c.written {
				t.Errorf("endpoint written: %t, want %t (%+v)", written, c.written, edits)
			}
			if got := compared.publications()[key(1)]; got != c.want {
				t.Errorf("remembers %v, want %v", got, c.want)
			}
		})
	}
}

// A device that is compared with an old copy of the leases: a slow model says for each peer
// which settings may change.
func TestOldConfigTakesNothingFromPeersThatAreKept(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		live, want := drawLive(t), drawWant(t)
		want.Removals = rapid.SampledFrom([]Removals{RemoveNone, RemoveSilent}).Draw(t, "removals")
		dev := tunnelOf(live)
		before := dev.list().peers
		for _, e := range editsOf(before, want) {
			dev.configure(peerConfig(e))
		}
		after := map[wgtypes.Key]livePeer{}
		for _, p := range dev.list().peers {
			after[p.key] = p
		}
		for _, old := range before {
			if want.Removals == RemoveSilent && !old.handshake.Equal(testNow) {
				continue
			}
			now, ok := after[old.key]
			if !ok || old.endpoint.IsValid() && now.endpoint != old.endpoint || now.psk != old.psk || now.keepalive != old.keepalive {
				t.Fatalf("%v: peer %+v became %+v", want.Removals, old, now)
			}
			for _, prefix := range old.prefixes {
				if dev.holder[prefix] != old.key {
					t.Fatalf("%v: peer %v lost %v to %v", want.Removals, old.key, prefix, dev.holder[prefix])
				}
			}
		}
		for p := range want.Peers.All() {
			if _, ok := after[p.Key]; !ok {
				t.Fatalf("%v: peer %v was not added", want.Removals, p.Key)
			}
			for _, prefix := range p.Subnets.All() {
				if _, ok := dev.holder[prefix]; !ok {
					t.Fatalf("%v: %v has no holder", want.Removals, prefix)
				}
			}
		}
		if again := editsOf(dev.list().peers, want); len(again) > 0 {
			t.Fatalf("a second look finds %v", again)
		}
		want.Removals = RemoveUnwanted // the store has answered
		for _, e := range editsOf(dev.list().peers, want) {
			dev.configure(peerConfig(e))
		}
		if len(dev.peers) != want.Peers.Len() {
			t.Fatalf("%d peers in the end, want %d", len(dev.peers), want.Peers.Len())
		}
	})
}

func TestChangeSaysInFewWordsWhatHappens(t *testing.T) {
	a, b := wgtypes.Key{1}, wgtypes.Key{2}
	prefix := netip.MustParsePrefix("10.244.1.0/24")
	at := opt.Some(netip.MustParseAddrPort("192.0.2.1:51820"))
	for want, edits := range map[string][]edit{
		"add peer " + a.String() + " at 192.0.2.1:51820 for 10.244.1.0/24": {{key: a, verb: add, endpoint: at, gain: []netip.Prefix{prefix}}},
		"delete peer " + a.String():                                        {{key: a, verb: remove}},
		"set peer " + a.String() + " with another pre-shared key with keepalive 5s": {
			{key: a, verb: change, psk: opt.Some(config.PresharedKey{9}), keepalive: opt.Some(5 * time.Second)}},
		"add 2 peers: 2 new, 0 changed, 0 gone":    {{key: a, verb: add}, {key: b, verb: add}},
		"delete 2 peers: 0 new, 0 changed, 2 gone": {{key: a, verb: remove}, {key: b, verb: remove}},
		"set 2 peers: 1 new, 0 changed, 1 gone":    {{key: a, verb: add}, {key: b, verb: remove}},
		"set allowed IPs":                          {{key: a, verb: service, gain: []netip.Prefix{prefix}}, {key: a, verb: service}},
	} {
		verb, object := describe(edits)
		if got := verb + " " + object; got != want {
			t.Errorf("got  %q\nwant %q", got, want)
		}
	}
}

func TestKeepaliveIsRoundedToWhatWireGuardHolds(t *testing.T) {
	for in, want := range map[time.Duration]time.Duration{
		-time.Second: 0, 0: 0, 1: time.Second, time.Second: time.Second, 1500 * time.Millisecond: 2 * time.Second,
		24 * time.Hour: 65535 * time.Second,
	} {
		if got := wholeSeconds(in); got != want {
			t.Errorf("%v: got %v, want %v", in, got, want)
		}
	}
}

// key returns a public key that names a peer in a test.
func key(n byte) wgtypes.Key { return wgtypes.Key{n} }
