package backend

import (
	"maps"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/loden-net/loden/config/opt"
	"github.com/loden-net/loden/config/sorted"
)

func TestRecordOfEndpointsIsReadAsItWasWritten(t *testing.T) {
	f := &endpointFile{path: EndpointPath(t.TempDir(), "loden0")}
	if got, err := f.load(); err != nil || len(got) != 0 {
		t.Errorf("without a file: %v, %v", got, err)
	}
	want := endpoints{key(1): netip.MustParseAddrPort("192.0.2.1:51820"), key(2): netip.MustParseAddrPort("[2001:db8::1]:51820")}
	if err := f.save(want); err != nil {
		t.Fatal(err)
	}
	if got, err := f.load(); err != nil || !maps.Equal(got, want) {
		t.Errorf("got %v, %v, want %v", got, err, want)
	}
	text, err := os.ReadFile(f.path)
	if err != nil {
		t.Fatal(err)
	}
	damaged := strings.Replace(string(text), "192.0.2.1", "192.0.2", 1) + "\x00\nhello world\n"
	if got := parseEndpoints([]byte(damaged)); len(got) != 1 || got[key(2)] != want[key(2)] {
		t.Errorf("of a damaged record: %v", got)
	}
}

func FuzzEndpoints(f *testing.F) {
	f.Add(endpoints{key(1): netip.MustParseAddrPort("192.0.2.1:51820")}.text())
	f.Add([]byte("x y\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		first := parseEndpoints(text)
		if again := parseEndpoints(first.text()); !maps.Equal(first, again) {
			t.Errorf("%q: got %v, then %v", text, first, again)
		}
	})
}

func TestDeviceFollowsANewPublicationAcrossARestartOfTheDaemon(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		first, second := netip.MustParseAddrPort("192.0.2.2:51820"), netip.MustParseAddrPort("192.0.2.22:51820")
		learned := netip.MustParseAddrPort("198.51.100.7:4242")
		n := newFakeNode(t, NewFake(), Peer{Key: key(2), Endpoint: first})
		n.Hear(key(2), first)
		n.want.Peers = sorted.Of(Peer{Key: key(2), Endpoint: second})
		n.open() // while the daemon was away, the peer got another address
		if got := n.apply(); !slices.Equal(got, []string{"device: set peer " + key(2).String() + " at 192.0.2.22:51820"}) {
			t.Errorf("changes: %q", got)
		}
		n.Hear(key(2), learned)
		n.open()
		if got := n.apply(); len(got) != 0 {
			t.Errorf("a peer that roamed causes %q", got)
		}
		time.Sleep(SessionLife)
		if got := n.apply(); len(got) != 1 {
			t.Errorf("a peer that is not heard any more causes %q", got)
		}
		n.run(n.changes(opt.None[Config]()))
		if n.record != nil {
			t.Errorf("after the removal the record is %v", n.record)
		}
	})
}

func TestDaemonThatStartsFromDiskOnlyAddsUntilTheStoreHasSpoken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		at := netip.MustParseAddrPort("192.0.2.2:51820")
		young, old, silent := Peer{Key: key(1), Endpoint: at}, Peer{Key: key(2), Endpoint: at}, Peer{Key: key(3), Endpoint: at}
		n := newFakeNode(t, NewFake(), young, old, silent)
		n.Hear(key(1), at)
		n.open()
		n.want.Port, n.want.Removals = 51900, RemoveNone
		n.want.Peers = sorted.Of(old, Peer{Key: key(4), Endpoint: at}) // the copy on disk is older than two peers
		if got := n.apply(); !slices.Equal(got, []string{"device: add peer " + key(4).String() + " at " + at.String()}) {
			t.Errorf("on the word of the disk: %q", got)
		}
		n.want.Removals = RemoveSilent // --store-wait is over
		want := []string{"device: set key and port 51900 of loden0", "device: delete peer " + key(3).String()}
		if got := n.apply(); !slices.Equal(got, want) {
			t.Errorf("without the store: %q, want %q", got, want)
		}
		n.want.Removals = RemoveUnwanted // the store has spoken
		if got := n.apply(); !slices.Equal(got, []string{"device: delete peer " + key(1).String()}) {
			t.Errorf("on the word of the store: %q", got)
		}
	})
}

func TestRecordOutlivesTheReplacementOfTheInterfaceByAnotherKind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		at := netip.MustParseAddrPort("192.0.2.2:51820")
		n := newFakeNode(t, NewFake().Kernel(), Peer{Key: key(2), Endpoint: at})
		n.openAs("loden")
		made := n.apply() // which proves that a second look finds no change
		want := "device: delete loden0: another kind of WireGuard is wanted"
		if made[0] != want || n.record[key(2)] != at {
			t.Errorf("changes %q, record %v", made, n.record)
		}
	})
}
