package backend

import (
	"context"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/loden-net/loden/config"
	"github.com/loden-net/loden/config/opt"
)

// follow runs the steps of Follow from the present configuration to another, and returns them.
func (n *fakeNode) follow(to Config) []string {
	n.t.Helper()
	changes, err := n.device.Follow(n.t.Context(), n.want, to)
	if err != nil {
		n.t.Fatal(err)
	}
	n.want = to
	return n.run(changes)
}

func TestFollowLeavesNothingForChangesToDo(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		n := newFakeNode(t, NewFake())
		if rapid.Bool().Draw(rt, "psk") {
			n.want.PresharedKey = opt.Some(config.PresharedKey{1})
		}
		for range rapid.IntRange(1, 5).Draw(rt, "steps") {
			to := n.want
			to.Peers = drawWant(rt).Peers
			n.follow(to)
			if again := n.apply(); len(again) > 0 {
				rt.Fatalf("after Follow, Changes finds %q", again)
			}
		}
	})
}

func TestFollowTellsOnlyThePeerThatDiffersAndListsNone(t *testing.T) {
	n := newFakeNode(t, NewFake())
	_, many := thousand()
	to := n.want
	to.Peers = many.Peers
	n.follow(to)
	before := n.Calls()
	moved, at := to.Peers.Slice()[500], netip.MustParseAddrPort("192.0.2.9:51820")
	moved.Endpoint = at
	to.Peers = to.Peers.With(moved)
	if got := n.follow(to); !slices.Equal(got, []string{"device: set peer " + moved.Key.String() + " at " + at.String()}) {
		t.Errorf("changes: %q", got)
	}
	if got := n.Calls()[len(before):]; !slices.Equal(got, []string{"configure 1 peers"}) {
		t.Errorf("effects: %q", got)
	}
	if got := n.follow(to); len(got) > 0 {
		t.Errorf("without a difference: %q", got)
	}
}

func TestFollowKeepsAnEndpointThatThePeerRoamedTo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		at, learned := netip.MustParseAddrPort("192.0.2.2:51820"), netip.MustParseAddrPort("198.51.100.7:4242")
		n := newFakeNode(t, NewFake(), Peer{Key: key(2), Endpoint: at})
		n.Hear(key(2), learned)
		to := n.want
		to.Peers = to.Peers.With(Peer{Key: key(2), Endpoint: at, Subnets: opt.Dual[netip.Prefix]{}.With(opt.V4, testPrefixes()[0])})
		if got := n.follow(to); len(got) != 1 || strings.Contains(got[0], " at ") {
			t.Errorf("another subnet touches the endpoint: %q", got)
		}
		n.open() // another daemon remembers the publication
		if got := n.apply(); len(got) > 0 {
			t.Errorf("after a restart of the daemon: %q", got)
		}
	})
}

func TestFollowOfAnEngineThatHangsFailsSoon(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newFakeNode(t, NewFake())
		n.Hang(true)
		to := n.want
		to.Peers = to.Peers.With(Peer{Key: key(2), Endpoint: netip.MustParseAddrPort("192.0.2.2:51820")})
		changes, err := n.device.Follow(t.Context(), n.want, to)
		if err != nil || len(changes) != 1 {
			t.Fatal(changes, err)
		}
		began := time.Now()
		if err := changes[0].Run(context.Background()); err == nil || time.Since(began) > 2*followWithin {
			t.Errorf("error %v after %v", err, time.Since(began))
		}
	})
}

func TestRecordOfEndpointsGrowsByLinesAndIsFoldedNowAndThen(t *testing.T) {
	f := &endpointFile{path: t.TempDir() + "/loden0.endpoints"}
	want := endpoints{}
	for i := range 3 * foldAfter {
		k, at := key(byte(i%7)), netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 0, 2, byte(i)}), uint16(1+i%60000))
		if i%5 == 0 {
			at = netip.AddrPort{}
		}
		want.set(k, at)
		if err := f.add(endpoints{k: at}); err != nil {
			t.Fatal(err)
		}
	}
	got, err := f.load()
	if err != nil || !maps.Equal(got, want) || f.added.Load() > foldAfter {
		t.Errorf("got %v, %v, want %v; %d lines added", got, err, want, f.added.Load())
	}
}
