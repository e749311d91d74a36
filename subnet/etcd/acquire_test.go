package etcd_test

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"github.com/loden-net/loden/config"
	"github.com/loden-net/loden/config/opt"
	"github.com/loden-net/loden/subnet"
	"github.com/loden-net/loden/subnet/etcd"
)

const (
	dualDoc = `{"Network":"10.5.0.0/16","EnableIPv6":true,"IPv6Network":"fd00:5::/48","Backend":{"Type":"wireguard"}}`
	v4Doc   = `{"Network":"10.5.0.0/16","Backend":{"Type":"wireguard"}}`
	v6Doc   = `{"EnableIPv4":false,"EnableIPv6":true,"IPv6Network":"fd00:5::/48","Backend":{"Type":"wireguard"}}`
)

func network(t *testing.T, doc string) config.Network {
	t.Helper()
	n, err := config.ParseNetwork([]byte(doc))
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// key returns the same key for the same name.
func key(name string) wgtypes.Key {
	var k wgtypes.Key
	copy(k[:], name+"...............................")
	return k
}

// want is a node with a key and an address of its own.
func want(name string, host byte) subnet.Lease {
	return subnet.Lease{
		Node: name, Key: key(name),
		Endpoints: opt.Dual[netip.AddrPort]{V4: opt.Some(netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 0, 2, host}), 51820))},
	}
}

var noPrefix opt.Dual[netip.Prefix]

func acquire(t *testing.T, r *etcd.Registry, n config.Network, w subnet.Lease, prefer opt.Dual[netip.Prefix]) *etcd.Claim {
	t.Helper()
	c, err := r.Acquire(t.Context(), etcd.Want{Network: n, Lease: w, Prefer: prefer})
	if err != nil {
		t.Fatalf("acquire for %s: %v", w.Node, err)
	}
	return c
}

func subnets(t *testing.T, leaf string) opt.Dual[netip.Prefix] {
	t.Helper()
	s, err := subnet.ParseKey(leaf)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// keys lists everything under the test's prefix as "key -> lease attached or not".
func dump(t *testing.T, c *clientv3.Client) map[string]string {
	t.Helper()
	resp, err := c.Get(t.Context(), prefix(t)+"/", clientv3.WithPrefix())
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]string{}
	for _, kv := range resp.Kvs {
		out[strings.TrimPrefix(string(kv.Key), prefix(t)+"/")] = string(kv.Value)
	}
	return out
}

func revision(t *testing.T, c *clientv3.Client) int64 {
	t.Helper()
	resp, err := c.Get(t.Context(), prefix(t)+"/", append(clientv3.WithLastRev(), clientv3.WithPrefix())...)
	if err != nil {
		t.Fatal(err)
	}
	if len(resp.Kvs) == 0 {
		return 0
	}
	return resp.Kvs[0].ModRevision
}

func put(t *testing.T, c *clientv3.Client, leaf, value string) {
	t.Helper()
	if _, err := c.Put(t.Context(), prefix(t)+"/"+leaf, value); err != nil {
		t.Fatal(err)
	}
}

func TestAcquireWritesLeaseGuardsAndNodeInFlannelsForm(t *testing.T) {
	r, c := open(t, nil), plain(t, shared)
	got := acquire(t, r, network(t, dualDoc), want("worker-1", 7), subnets(t, "10.5.9.0-24&fd00:5:0:9::-64")).Lease()
	if subnet.FormatKey(got.Subnets) != "10.5.9.0-24&fd00:5:0:9::-64" {
		t.Fatalf("preferred subnets not taken: %v", got.Subnets)
	}
	keys := dump(t, c)
	value := keys["subnets/10.5.9.0-24&fd00:5:0:9::-64"]
	k := key("worker-1").String()
	flannels := `{"PublicIP":"192.0.2.7","PublicIPv6":null,"BackendType":"wireguard","BackendData":{"PublicKey":"` + k +
		`","Port":51820},"BackendV6Data":{"PublicKey":"` + k + `","Port":51820},"Node":"worker-1","Claimed":`
	if !strings.HasPrefix(value, flannels) {
		t.Errorf("value\n got %s\nwant %s...", value, flannels)
	}
	for guard, holder := range map[string]string{
		"guards/10.5.9.0-24": "worker-1", "guards/fd00:5:0:9::-64": "worker-1",
		"nodes/worker-1": `{"Lease":"10.5.9.0-24\u0026fd00:5:0:9::-64","PublicKey":"` + k + `"}`,
	} {
		if keys[guard] != holder {
			t.Errorf("%s: got %q, want %q", guard, keys[guard], holder)
		}
	}
	if len(keys) != 4 {
		t.Errorf("want 4 keys, got %v", keys)
	}
}

func TestAcquireAgainGivesTheSameLeaseAndWritesNothing(t *testing.T) {
	r, c, n := open(t, nil), plain(t, shared), network(t, dualDoc)
	first := acquire(t, r, n, want("a", 1), noPrefix).Lease()
	before := revision(t, c)
	second := acquire(t, open(t, nil), n, want("a", 1), subnets(t, "10.5.200.0-24")).Lease()
	if second != first {
		t.Errorf("second start: got %+v, want %+v", second, first)
	}
	if after := revision(t, c); after != before {
		t.Errorf("second start wrote: revision %d, was %d", after, before)
	}
}

func TestAcquireKeepsSubnets(t *testing.T) {
	n := func(t *testing.T) config.Network { return network(t, dualDoc) }
	cases := map[string]struct {
		first, then    func(*testing.T) config.Network
		again          subnet.Lease
		sameV4, sameV6 bool
	}{
		"when the endpoint changed":             {n, n, want("a", 99), true, true},
		"when the node was set up anew (key)":   {n, n, func() subnet.Lease { w := want("a", 1); w.Key = key("new"); return w }(), true, true},
		"of IPv4 when IPv6 is switched on":      {func(t *testing.T) config.Network { return network(t, v4Doc) }, n, want("a", 1), true, false},
		"of IPv4 when IPv6 is switched off":     {n, func(t *testing.T) config.Network { return network(t, v4Doc) }, want("a", 1), true, false},
		"of IPv6 when IPv4 is switched off":     {n, func(t *testing.T) config.Network { return network(t, v6Doc) }, want("a", 1), false, true},
		"of an IPv6-only network after restart": {func(t *testing.T) config.Network { return network(t, v6Doc) }, func(t *testing.T) config.Network { return network(t, v6Doc) }, want("a", 1), false, true},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			r, c := open(t, nil), plain(t, shared)
			before := acquire(t, r, tc.first(t), want("a", 1), noPrefix).Lease()
			after := acquire(t, r, tc.then(t), tc.again, noPrefix).Lease()
			if tc.sameV4 && before.Subnets.V4 != after.Subnets.V4 || tc.sameV6 && before.Subnets.V6 != after.Subnets.V6 {
				t.Errorf("subnets moved: %v, then %v", before.Subnets, after.Subnets)
			}
			if after.Key != tc.again.Key || after.Endpoints != tc.again.Endpoints {
				t.Errorf("lease says %+v, want the key and endpoints of %+v", after, tc.again)
			}
			s, err := r.Snapshot(t.Context())
			if err != nil || s.Leases.Len() != 1 || s.Leases.Slice()[0] != after {
				t.Errorf("store has %+v (%v), claim %+v", s.Leases, err, after)
			}
			if keys := dump(t, c); len(keys) != 2+after.Subnets.Len() {
				t.Errorf("want one lease, one node and %d guards, got %v", after.Subnets.Len(), keys)
			}
		})
	}
}

func TestAcquireRefusesANameThatALivingNodeHas(t *testing.T) {
	r, n := open(t, nil), network(t, dualDoc)
	acquire(t, r, n, want("a", 1), noPrefix)
	other := want("a", 2)
	other.Key = key("other")
	_, err := r.Acquire(t.Context(), etcd.Want{Network: n, Lease: other})
	if !errors.Is(err, etcd.ErrNameTaken) {
		t.Fatalf("got %v, want ErrNameTaken", err)
	}
	for _, part := range []string{key("a").String(), key("other").String(), "192.0.2.1:51820", "192.0.2.2:51820", "loden lease release a", "--node-name"} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("%q does not say %q", err, part)
		}
	}
	if err := r.Release(t.Context(), "a"); err != nil {
		t.Fatal(err)
	}
	acquire(t, r, n, other, noPrefix)
}

func TestAcquireTakesOverFlannelsLeaseOfThisAddress(t *testing.T) {
	r, c := open(t, nil), plain(t, shared)
	put(t, c, "subnets/10.5.3.0-24&fd00:5:0:77::-64", `{"PublicIP":"192.0.2.1","PublicIPv6":null,"BackendType":"vxlan","BackendData":{"VNI":1}}`)
	put(t, c, "subnets/10.5.4.0-24&fd00:5:0:78::-64", `{"PublicIP":"192.0.2.2","PublicIPv6":null,"BackendType":"wireguard","BackendData":{"PublicKey":"`+key("flannel").String()+`","Port":51820},"BackendV6Data":{"PublicKey":"`+key("flannel").String()+`","Port":51821}}`)
	got := acquire(t, r, network(t, dualDoc), want("b", 2), noPrefix).Lease()
	if subnet.FormatKey(got.Subnets) != "10.5.4.0-24&fd00:5:0:78::-64" {
		t.Errorf("got %v", got.Subnets)
	}
	if !got.Reserved {
		t.Error("a key without an etcd lease is a reservation, and must stay one")
	}
	fresh := acquire(t, r, network(t, dualDoc), want("c", 3), subnets(t, "10.5.3.0-24&fd00:5:0:77::-64")).Lease()
	if fresh.Subnets.V4 == opt.Some(netip.MustParsePrefix("10.5.3.0/24")) || fresh.Subnets.V6 == opt.Some(netip.MustParsePrefix("fd00:5:0:77::/64")) {
		t.Errorf("a subnet that flannel holds was given out: %v", fresh.Subnets)
	}
}

func TestAcquireRepairsWhatWasDeletedByHand(t *testing.T) {
	for _, gone := range []string{"subnets/", "guards/", "nodes/", ""} {
		t.Run(gone, func(t *testing.T) {
			r, c, n := open(t, nil), plain(t, shared), network(t, dualDoc)
			before := acquire(t, r, n, want("a", 1), noPrefix)
			if _, err := c.Delete(t.Context(), prefix(t)+"/"+gone, clientv3.WithPrefix()); err != nil {
				t.Fatal(err)
			}
			if err := before.Keep(within(t)); !errors.Is(err, etcd.ErrLeaseLost) {
				t.Fatalf("keep: got %v, want ErrLeaseLost", err)
			}
			after := acquire(t, r, n, want("a", 1), before.Lease().Subnets)
			if after.Lease().Subnets != before.Lease().Subnets {
				t.Errorf("subnets moved: %v, then %v", before.Lease().Subnets, after.Lease().Subnets)
			}
			if keys := dump(t, c); len(keys) != 4 {
				t.Errorf("want 4 keys, got %v", keys)
			}
		})
	}
}

func TestAcquireRewritesUnderAnotherTimeToLive(t *testing.T) {
	n := network(t, dualDoc)
	before := acquire(t, open(t, nil), n, want("a", 1), noPrefix).Lease()
	r := open(t, func(o *etcd.Options) { o.TTL = time.Hour })
	after := acquire(t, r, n, want("a", 1), noPrefix).Lease()
	if before != after {
		t.Errorf("lease changed: %+v, then %+v", before, after)
	}
	entries, _, err := r.Leases(t.Context())
	if err != nil || len(entries) != 1 {
		t.Fatalf("leases: %v, %v", entries, err)
	}
	if ttl, _ := entries[0].TTL.Get(); ttl < 59*time.Minute {
		t.Errorf("time to live is %v, want an hour", ttl)
	}
}

func TestAcquireAtOnceGivesNoSubnetTwice(t *testing.T) {
	r := open(t, nil)
	// 64 nodes on 127 subnets: crowded enough to lose races.
	n := network(t, `{"Network":"10.5.0.0/16","SubnetLen":23,"EnableIPv6":true,"IPv6Network":"fd00:5::/48","IPv6SubnetLen":55}`)
	var mu sync.Mutex
	holder := map[netip.Prefix]string{}
	var wg sync.WaitGroup
	for i := range 64 {
		wg.Go(func() {
			name := fmt.Sprintf("node-%d", i)
			c, err := r.Acquire(t.Context(), etcd.Want{Network: n, Lease: want(name, byte(i))})
			if err != nil {
				t.Error(err)
				return
			}
			mu.Lock()
			defer mu.Unlock()
			for _, p := range c.Lease().Subnets.All() {
				if other, taken := holder[p]; taken {
					t.Errorf("%s is held by %s and %s", p, other, name)
				}
				holder[p] = name
			}
		})
	}
	wg.Wait()
	if len(holder) != 128 {
		t.Errorf("want 128 subnets, got %d", len(holder))
	}
}

func TestAcquireFillsTheLastSubnetAndThenSaysSo(t *testing.T) {
	r := open(t, nil)
	n := network(t, `{"Network":"10.5.0.0/28","SubnetLen":30}`) // three subnets: the first is never used
	for i, name := range []string{"a", "b", "c"} {
		acquire(t, r, n, want(name, byte(i)), noPrefix)
	}
	if _, err := r.Acquire(t.Context(), etcd.Want{Network: n, Lease: want("d", 9)}); !errors.Is(err, subnet.ErrOutOfSubnets) {
		t.Fatalf("got %v, want ErrOutOfSubnets", err)
	}
}
