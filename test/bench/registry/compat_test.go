package main

import (
	"context"
	"encoding/json"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/flannel-io/flannel/pkg/ip"
	flease "github.com/flannel-io/flannel/pkg/lease"
	"github.com/rs/zerolog"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/loden-net/loden/config"
	"github.com/loden-net/loden/config/opt"
	"github.com/loden-net/loden/subnet"
	"github.com/loden-net/loden/subnet/etcd"
)

const patience = 60 * time.Second

func start(t *testing.T) (*store, *etcd.Registry, flannel, config.Network) {
	t.Helper()
	quietFlannel()
	s, err := startStore()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.close)
	if err := s.put(t.Context(), "/net/config", dualDoc); err != nil {
		t.Fatal(err)
	}
	r, err := etcd.Open(t.Context(), etcd.Options{Endpoints: []string{s.url}, Prefix: "/net", TTL: time.Minute}, zerolog.Nop())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.Close() })
	n, err := r.Network(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return s, r, newFlannel(s, "/net"), n
}

// flannelSees follows with flannel's manager and returns flannel's peers.
type flannelSees struct {
	results chan []flease.LeaseWatchResult
	watcher flease.LeaseWatcher
	peers   map[string]flease.Lease
	removed []string
}

func followWithFlannel(t *testing.T, f flannel) *flannelSees {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	m, err := f.open(ctx)
	if err != nil {
		t.Fatal(err)
	}
	w := &flannelSees{results: make(chan []flease.LeaseWatchResult), peers: map[string]flease.Lease{}}
	w.watcher.OwnLease = &flease.Lease{} // flannel always runs with a lease
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = m.WatchLeases(ctx, w.results)
	}()
	t.Cleanup(func() {
		cancel()
		for {
			select {
			case <-w.results:
			case <-done:
				return
			}
		}
	})
	return w
}

// until takes results, as flannel's own daemon does, until the condition holds.
func (w *flannelSees) until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	limit := time.After(patience)
	for !ok() {
		select {
		case <-limit:
			t.Fatalf("waited for: %s; flannel sees %v", what, w.peers)
		case batch := <-w.results:
			for _, r := range batch {
				events := r.Events
				if len(events) == 0 { // flannel's rule, and its trap: no events means a snapshot
					events = w.watcher.Reset(r.Snapshot)
				} else {
					events = w.watcher.Update(events)
				}
				for _, e := range events {
					key := e.Lease.Subnet.StringSep(".", "-") + "&" + e.Lease.IPv6Subnet.StringSep(":", "-")
					if e.Type == flease.EventAdded {
						w.peers[key] = e.Lease
					} else {
						delete(w.peers, key)
						w.removed = append(w.removed, key)
					}
				}
			}
		}
	}
}

func TestFlannelReadsOurLeases(t *testing.T) {
	s, r, f, n := start(t)
	w := followWithFlannel(t, f)
	l := lease(1)
	l.Endpoints.V6 = opt.Some(netip.MustParseAddrPort("[2001:db8::7]:51820"))
	first, err := r.Acquire(t.Context(), etcd.Want{Network: n, Lease: l})
	if err != nil {
		t.Fatal(err)
	}
	key := subnet.FormatKey(first.Lease().Subnets)
	w.until(t, "our lease", func() bool { return len(w.peers) == 1 })
	got, ok := w.peers[key]
	if !ok {
		t.Fatalf("flannel has %v, want the key %s", w.peers, key)
	}
	if got.Attrs.PublicIP.String() != address(1).String() || got.Attrs.PublicIPv6.String() != "2001:db8::7" || got.Attrs.BackendType != "wireguard" {
		t.Errorf("flannel reads %v", got.Attrs.String())
	}
	for _, raw := range []json.RawMessage{got.Attrs.BackendData, got.Attrs.BackendV6Data} {
		var data struct {
			PublicKey string
			Port      int
		}
		if err := json.Unmarshal(raw, &data); err != nil || data.PublicKey != l.Key.String() || data.Port != 51820 {
			t.Errorf("backend data %s: %+v, %v", raw, data, err)
		}
	}
	// Everything else that we do must not cost flannel a peer: it drops all of them at one
	// key under its prefix that it cannot read.
	second, err := r.Acquire(t.Context(), etcd.Want{Network: n, Lease: lease(2)})
	if err != nil {
		t.Fatal(err)
	}
	w.until(t, "the second lease", func() bool { return len(w.peers) == 2 })
	if _, err := r.Reserve(t.Context(), n, "reserved", opt.Dual[netip.Prefix]{}); err != nil {
		t.Fatal(err)
	}
	w.until(t, "the reservation, as a taken subnet", func() bool { return len(w.peers) == 3 })
	if err := first.Update(t.Context(), lease(3)); err != nil {
		t.Fatal(err)
	}
	w.until(t, "the new key and address", func() bool { return w.peers[key].Attrs.PublicIP.String() == address(3).String() })
	if err := second.Release(t.Context()); err != nil {
		t.Fatal(err)
	}
	gone := subnet.FormatKey(second.Lease().Subnets)
	w.until(t, "the end of the second lease", func() bool { return len(w.peers) == 2 })
	if !slices.Equal(w.removed, []string{gone}) {
		t.Errorf("flannel removed %v, want only %s", w.removed, gone)
	}
	_ = s
}

func TestWeReadFlannelsLeases(t *testing.T) {
	s, r, f, n := start(t)
	theirs, err := f.join(t.Context(), 1)
	if err != nil {
		t.Fatal(err)
	}
	snapshot, err := r.Snapshot(t.Context())
	if err != nil || snapshot.Leases.Len() != 1 || len(snapshot.Problems) != 0 {
		t.Fatalf("%+v, %v", snapshot, err)
	}
	l := snapshot.Leases.Slice()[0]
	if l.Node != "" || l.Key != key(1) || l.Endpoints.V4 != opt.Some(netip.AddrPortFrom(address(1), 51820)) ||
		l.Subnets.V4.String() != theirs.v4 || l.Subnets.V6.String() != theirs.v6 {
		t.Errorf("read %+v, flannel holds %+v", l, theirs)
	}
	peers, problems := subnet.Validate(n, subnet.Identity{Node: "us", Key: key(99)}, snapshot.Leases.Slice())
	if len(peers) != 1 || len(problems) != 0 {
		t.Errorf("as a peer: %v, %v", peers, problems)
	}
	// Its value equals the value that Loden would write, byte for byte.
	resp, err := s.client.Get(t.Context(), "/net/subnets/", clientv3.WithPrefix())
	if err != nil || len(resp.Kvs) != 1 {
		t.Fatal(resp, err)
	}
	ours := string(subnet.FormatValue(l))
	var want flease.LeaseAttrs
	if err := json.Unmarshal(resp.Kvs[0].Value, &want); err != nil {
		t.Fatal(err)
	}
	canonical, _ := json.Marshal(map[string]any{"PublicKey": key(1).String(), "Port": 51820})
	flannelText := strings.ReplaceAll(string(resp.Kvs[0].Value), string(canonical), `{"PublicKey":"`+key(1).String()+`","Port":51820}`)
	if ours != flannelText {
		t.Errorf("\nours    %s\nflannel %s", ours, flannelText)
	}
	// A node of ours at flannel's address takes its lease over; another keeps clear of it.
	other, err := r.Acquire(t.Context(), etcd.Want{Network: n, Lease: lease(2), Prefer: l.Subnets})
	if err != nil {
		t.Fatal(err)
	}
	for fam, p := range other.Lease().Subnets.All() {
		if q, _ := l.Subnets.Of(fam).Get(); p == q {
			t.Errorf("%s given out twice", p)
		}
	}
	same, err := r.Acquire(t.Context(), etcd.Want{Network: n, Lease: lease(1)})
	if err != nil || same.Lease().Subnets != l.Subnets {
		t.Errorf("take-over: %+v, %v; want %v", same, err, l.Subnets)
	}
}

func TestFlannelKeepsClearOfOurs(t *testing.T) {
	_, r, f, n := start(t)
	ours, err := r.Acquire(t.Context(), etcd.Want{Network: n, Lease: lease(1)})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	m, err := f.open(ctx)
	if err != nil {
		t.Fatal(err)
	}
	a, err := attrs(2)
	if err != nil {
		t.Fatal(err)
	}
	theirs, err := m.AcquireLease(ctx, a)
	if err != nil {
		t.Fatal(err)
	}
	v4, _ := ours.Lease().Subnets.V4.Get()
	v6, _ := ours.Lease().Subnets.V6.Get()
	if theirs.Subnet.String() == v4.String() || theirs.IPv6Subnet.String() == v6.String() || theirs.Subnet.Equal(ip.IP4Net{}) {
		t.Errorf("flannel took %s and %s; we hold %s and %s", theirs.Subnet, theirs.IPv6Subnet, v4, v6)
	}
}
