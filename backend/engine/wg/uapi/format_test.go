package uapi_test

import (
	"bytes"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/loden-net/loden/backend/engine/wg/noise"
	"github.com/loden-net/loden/backend/engine/wg/uapi"
	"github.com/loden-net/loden/config/opt"
)

// slowFormat is Peer.Format in the words of fmt.
func slowFormat(p uapi.Peer) string {
	var w strings.Builder
	fmt.Fprintf(&w, "public_key=%s\npreshared_key=%s\nprotocol_version=1\n", p.PublicKey.Hex(), p.PresharedKey.Hex())
	if to, ok := p.Endpoint.Get(); ok {
		fmt.Fprintf(&w, "endpoint=%s\n", to)
	}
	seconds, nanoseconds := int64(0), 0
	if !p.LastHandshake.IsZero() {
		seconds, nanoseconds = p.LastHandshake.Unix(), p.LastHandshake.Nanosecond()
	}
	fmt.Fprintf(&w, "last_handshake_time_sec=%d\nlast_handshake_time_nsec=%d\n", seconds, nanoseconds)
	fmt.Fprintf(&w, "tx_bytes=%d\nrx_bytes=%d\npersistent_keepalive_interval=%d\n", p.Sent, p.Received, int(p.Keepalive.Seconds()))
	for _, prefix := range p.AllowedIPs {
		fmt.Fprintf(&w, "allowed_ip=%s\n", prefix)
	}
	return w.String()
}

func TestPeerIsFormattedAsTheSlowFormatDoes(t *testing.T) {
	key := rapid.Custom(func(t *rapid.T) noise.Key {
		return noise.Key(rapid.SliceOfN(rapid.Byte(), 32, 32).Draw(t, "key"))
	})
	addr := rapid.SampledFrom([]string{"192.0.2.1", "2001:db8::1", "fe80::1%eth0-with-a-name", "::ffff:192.0.2.1", "ff02::1"})
	rapid.Check(t, func(t *rapid.T) {
		p := uapi.Peer{
			PublicKey: key.Draw(t, "public"), PresharedKey: key.Draw(t, "preshared"),
			Sent: rapid.Uint64().Draw(t, "sent"), Received: rapid.Uint64().Draw(t, "received"),
			Keepalive: time.Duration(rapid.Uint16().Draw(t, "keepalive")) * time.Second,
		}
		if rapid.Bool().Draw(t, "has an endpoint") {
			p.Endpoint = opt.Some(netip.AddrPortFrom(netip.MustParseAddr(addr.Draw(t, "endpoint")), rapid.Uint16().Draw(t, "port")))
		}
		if rapid.Bool().Draw(t, "had a handshake") {
			p.LastHandshake = time.Unix(rapid.Int64Range(0, 1<<40).Draw(t, "seconds"), rapid.Int64Range(0, 999_999_999).Draw(t, "nanoseconds"))
		}
		for range rapid.IntRange(0, 3).Draw(t, "allowed IPs") {
			a := netip.MustParseAddr(addr.Draw(t, "allowed IP")).WithZone("")
			p.AllowedIPs = append(p.AllowedIPs, netip.PrefixFrom(a, rapid.IntRange(0, a.BitLen()).Draw(t, "bits")))
		}
		var got bytes.Buffer
		p.Format(&got)
		if got.String() != slowFormat(p) {
			t.Errorf("got\n%s\nwant\n%s", got.String(), slowFormat(p))
		}
	})
}
