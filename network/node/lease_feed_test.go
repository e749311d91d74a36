package node

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rs/zerolog"
	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"github.com/loden-net/loden/config"
	"github.com/loden-net/loden/config/opt"
	"github.com/loden-net/loden/network"
	"github.com/loden-net/loden/subnet"
)

const savedDocument = `{"Network":"10.244.0.0/16","Backend":{"Type":"wireguard"}}`

func savedLease(i int) subnet.Lease {
	return subnet.Lease{
		Node: fmt.Sprintf("n%d", i), Key: wgtypes.Key{byte(i), 1}, Since: int64(i),
		Subnets:   opt.Dual[netip.Prefix]{V4: opt.Some(netip.MustParsePrefix(fmt.Sprintf("10.244.%d.0/24", i)))},
		Endpoints: opt.Dual[netip.AddrPort]{V4: opt.Some(netip.MustParseAddrPort(fmt.Sprintf("192.0.2.%d:51820", i)))},
	}
}

func savedSnapshot(revision int64, nodes ...int) subnet.Snapshot {
	s := subnet.Snapshot{Revision: revision}
	for _, i := range nodes {
		s.Leases = s.Leases.With(savedLease(i))
	}
	return s
}

// testFeed returns the feed of node n1 and the reconciler behind it, which makes no pass.
func testFeed(t *testing.T, dir string) (*leaseFeed, *network.Reconciler) {
	t.Helper()
	r := network.New(network.Options{Self: network.Self{Name: "n1", Key: savedLease(1).Key}, Log: zerolog.Nop()})
	s := config.Settings{Name: "n1", StateDir: dir, RemovalHold: 5 * time.Minute}
	return newLeaseFeed(Settings{Settings: s, Log: zerolog.New(zerolog.NewTestWriter(t))}, r), r
}

// saveLeases writes the leases on disk of a node that holds lease 1.
func saveLeases(t *testing.T, dir string, s subnet.Snapshot) {
	t.Helper()
	c, r := testFeed(t, dir)
	r.Update(func(in *network.Inputs) { in.Lease = opt.Some(savedLease(1)) })
	c.setDocument([]byte(savedDocument))
	c.offer(s)
	if err := c.save(); err != nil {
		t.Fatal(err)
	}
}

func TestNodeStartsFromTheLeasesOnDisk(t *testing.T) {
	dir := t.TempDir()
	saveLeases(t, dir, savedSnapshot(9, 1, 2, 3))
	if info, err := os.Stat(savedPath(dir)); err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("file: %v, %v", info, err)
	}
	c, r := testFeed(t, dir)
	c.start("n1", savedLease(1).Key)
	in := r.Inputs()
	if own, ok := in.Lease.Get(); !ok || own != savedLease(1) || in.Leases.Len() != 3 || in.Network.Ranges.Len() != 1 {
		t.Errorf("got %+v", in)
	}
	if _, _, fromDisk := c.age(); !fromDisk {
		t.Error("does not say that the leases are from disk")
	}
	c.offer(savedSnapshot(10, 1, 2, 3))
	if _, _, fromDisk := c.age(); fromDisk {
		t.Error("still says so after etcd has answered")
	}
}

// A node that starts under another name keeps its key, and with the key its lease.
func TestRenamedNodeStartsFromTheLeasesOnDisk(t *testing.T) {
	dir := t.TempDir()
	saveLeases(t, dir, savedSnapshot(9, 1, 2, 3))
	c, r := testFeed(t, dir)
	c.start("renamed", savedLease(1).Key)
	want := savedLease(1)
	want.Node = "renamed"
	in := r.Inputs()
	if own, ok := in.Lease.Get(); !ok || own != want {
		t.Errorf("own lease %+v, %v, want %+v", own, ok, want)
	}
	if !slices.Equal(in.Leases.Slice(), []subnet.Lease{want, savedLease(2), savedLease(3)}) {
		t.Errorf("leases %+v", in.Leases)
	}
}

func TestLeasesOnDiskAreInputFromOutside(t *testing.T) {
	good := savedLease(1).Key
	for _, tt := range []struct {
		name string
		key  wgtypes.Key
		node string
		edit func(string) string
	}{
		{"of another key", savedLease(2).Key, "n1", func(s string) string { return s }},
		{"truncated", good, "n1", func(s string) string { return s[:len(s)/2] }},
		{"empty", good, "n1", func(string) string { return "" }},
		{"garbled", good, "n1", func(string) string { return "\x00\xff{" }},
		{"of another version", good, "n1", func(s string) string { return strings.Replace(s, `"version":1`, `"version":2`, 1) }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			saveLeases(t, dir, savedSnapshot(9, 1, 2))
			text, err := os.ReadFile(savedPath(dir))
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(savedPath(dir), []byte(tt.edit(string(text))), 0o600); err != nil {
				t.Fatal(err)
			}
			c, r := testFeed(t, dir)
			c.start(tt.node, tt.key)
			if in := r.Inputs(); in.Lease.Present() || in.Leases.Len() > 0 {
				t.Errorf("used: %+v", in)
			}
		})
	}
}

func TestMassRemovalIsHeldUntilItsTimeOrAnOperatorsWord(t *testing.T) {
	everybody := []int{1, 2, 3, 4, 5, 6, 7, 8, 9, 10}
	for _, confirmed := range []bool{false, true} {
		t.Run(fmt.Sprintf("confirmed %v", confirmed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c, r := testFeed(t, t.TempDir())
				ctx, stop := context.WithCancel(t.Context())
				ended := make(chan error, 1)
				go func() { ended <- c.Run(ctx) }()
				c.offer(savedSnapshot(1, everybody...))
				c.offer(savedSnapshot(2, 1))
				synctest.Wait()
				if got := r.Inputs().Leases.Len(); got != 10 || len(c.held()) != 9 {
					t.Errorf("right after: %d leases, held %v", got, c.held())
				}
				if confirmed {
					c.confirm()
				} else {
					time.Sleep(5*time.Minute + 2*time.Second) // fake time
				}
				synctest.Wait()
				if got := r.Inputs().Leases.Len(); got != 1 || len(c.held()) != 0 {
					t.Errorf("afterwards: %d leases, held %v", got, c.held())
				}
				stop()
				if err := <-ended; err != nil {
					t.Error(err)
				}
			})
		})
	}
}
