package state

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"net/netip"
	"reflect"
	"testing"

	"github.com/loden-net/loden/backend/engine/wg/noise"
	"github.com/loden-net/loden/config/opt"
)

// full has something in every field.
func full() *Device {
	keypair := func(n byte) opt.Option[Keypair] {
		return opt.Some(Keypair{
			Keys: noise.Keys{Send: noise.Key{n}, Receive: noise.Key{n + 1}, Remote: 7}, Local: uint32(n), Initiator: n == 1,
			Created: 9, Counter: 1 << 61, Window: Window{Newest: 1 << 40, Blocks: [16]uint64{uint64(n), 15: 1 << 63}},
		})
	}
	return &Device{
		Now: 5, Private: noise.Key{1}, Port: 51820, Mark: 0x10,
		Peers: []Peer{{
			Public: noise.Key{2}, Preshared: noise.Key{3}, Keepalive: 25,
			Endpoint: opt.Some(netip.MustParseAddrPort("[fe80::1%3]:7")), Local: netip.MustParseAddr("192.0.2.1"),
			Allowed: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("fd00::/64")},
			Sent:    1, Received: 2, Newest: [12]byte{4}, Finished: 6,
			ReadAt: 1, PersistAt: 2, SentAt: 3, GotAt: 4, OwedSince: 5, AwaitSince: 6, WantsKeys: true,
			Active: opt.Some(Active{
				Shared: noise.Key{5}, BegunAt: 1, OpenedAt: 2, DerivedAt: 3,
				Current: keypair(1), Previous: keypair(2), Next: keypair(3), Staged: [][]byte{{1, 2, 3}, {}},
			}),
		}, {Public: noise.Key{9}, Allowed: []netip.Prefix{}}},
	}
}

func TestStateIsReadAsItWasWritten(t *testing.T) {
	want := full()
	text := Encode(want)
	got, err := Decode(text)
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, %v\nwant %+v", got, err, want)
	}
	for n := range text {
		if _, err := Decode(text[:n]); err == nil {
			t.Errorf("the first %d of %d bytes are taken", n, len(text))
		}
	}
	if _, err := Decode(append(text, 0)); err == nil {
		t.Error("one byte too many is taken")
	}
	text[3]++
	if _, err := Decode(text); err == nil || err.Error() != "state of version 3, want 2" {
		t.Errorf("another version: %v", err)
	}
	got.Wipe()
	if got.Private != (noise.Key{}) || got.Peers[0].Preshared != (noise.Key{}) || got.Peers[0].Active.Present() {
		t.Error("wiped, it still has keys")
	}
}

// An engine and the engine that replaces it may be of different releases.
func TestTextOfARelease(t *testing.T) {
	const want = "f6b3f3acabb8cd4568782e6c86784fbd54757280b4754d21224b7958a69493f7"
	if got := fmt.Sprintf("%x", sha256.Sum256(Encode(full()))); got != want {
		t.Errorf("the text of version %d has another form (SHA-256 %s): give it another version", Version, got)
	}
}

func TestTextNeverGrows(t *testing.T) {
	d := full()
	longest := "[fe80::1%fifteen-letters]:7" // an interface's name has no more
	d.Peers[0].Endpoint = opt.Some(netip.MustParseAddrPort(longest))
	d.Peers[0].Local = netip.MustParseAddrPort(longest).Addr()
	d.Peers = d.Peers[:1]
	for range 100 {
		d.Peers = append(d.Peers, d.Peers[0])
	}
	if text := Encode(d); len(text) > bound(d) {
		t.Errorf("%d bytes, the bound is %d", len(text), bound(d))
	}
}

func FuzzDecode(f *testing.F) {
	f.Add(Encode(full()))
	f.Add(Encode(&Device{}))
	f.Add([]byte{0, 0, 0, 2, 0xff, 0xff, 0xff, 0xff})
	f.Fuzz(func(t *testing.T, text []byte) {
		d, err := Decode(text)
		if err != nil {
			return
		}
		if again, err := Decode(Encode(d)); err != nil || !reflect.DeepEqual(again, d) {
			t.Errorf("%v: got %+v, want %+v", err, again, d)
		}
		if first := Encode(d); !bytes.Equal(first, Encode(d)) {
			t.Error("written twice it differs")
		}
	})
}
