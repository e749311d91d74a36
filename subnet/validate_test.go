package subnet_test

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/loden-net/loden/config/opt"
	"github.com/loden-net/loden/subnet"
)

const dualDoc = `{"Network":"10.5.0.0/16","EnableIPv6":true,"IPv6Network":"fd00:5::/48","Backend":{"Type":"wireguard"}}`

// peer is a valid lease.
func peer(t testing.TB, node string, leaf string, fill byte, since int64) subnet.Lease {
	return subnet.Lease{
		Node: node, Subnets: mustKey(t, leaf), Key: key(fill), Since: since,
		Endpoints: opt.Dual[netip.AddrPort]{V4: opt.Some(netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 0, 2, fill}), 51820))},
	}
}

func TestValidateRefuses(t *testing.T) {
	n := parse(t, dualDoc)
	self := peer(t, "self", "10.5.1.0-24&fd00:5:0:1::-64", 1, 100)
	older := peer(t, "older", "10.5.2.0-24&fd00:5:0:2::-64", 2, 50)
	with := func(change func(*subnet.Lease)) subnet.Lease {
		l := peer(t, "bad", "10.5.3.0-24&fd00:5:0:3::-64", 3, 200)
		change(&l)
		return l
	}
	subnets := func(leaf string) subnet.Lease { return with(func(l *subnet.Lease) { l.Subnets = mustKey(t, leaf) }) }
	at := func(e string) subnet.Lease {
		return with(func(l *subnet.Lease) { l.Endpoints = opt.Dual[netip.AddrPort]{V4: endpoint(e)} })
	}
	at6 := func(e string) subnet.Lease {
		return with(func(l *subnet.Lease) { l.Endpoints = opt.Dual[netip.AddrPort]{V6: endpoint(e)} })
	}
	cases := map[string]struct {
		lease  subnet.Lease
		reason string
	}{
		"everything (0.0.0.0/0)":          {with(func(l *subnet.Lease) { l.Subnets.V4 = opt.Some(netip.MustParsePrefix("0.0.0.0/0")) }), "is not a /24"},
		"half of everything":              {subnets("128.0.0.0-1"), "is not a /24"},
		"a subnet outside the network":    {subnets("10.6.3.0-24"), "not one of the network"},
		"an IPv6 subnet outside":          {subnets("10.5.3.0-24&fd00:6::-64"), "not one of the network"},
		"an older lease's subnet":         {subnets("10.5.2.0-24"), "older lease older"},
		"an older lease's IPv6 subnet":    {subnets("10.5.3.0-24&fd00:5:0:2::-64"), "older lease older"},
		"a part of an older lease's":      {subnets("10.5.2.128-25"), "is not a /24"},
		"a part of nobody's":              {subnets("10.5.9.128-25"), "is not a /24"},
		"our subnet":                      {subnets("10.5.1.0-24"), "is ours"},
		"our IPv6 subnet":                 {subnets("10.5.3.0-24&fd00:5:0:1::-64"), "is ours"},
		"a part of ours":                  {subnets("10.5.1.0-25"), "is not a /24"},
		"an older lease's key":            {with(func(l *subnet.Lease) { l.Key = key(2) }), "key is that of the older lease"},
		"our key":                         {with(func(l *subnet.Lease) { l.Key = key(1) }), "our own public key"},
		"no key":                          {with(func(l *subnet.Lease) { l.Key = key(0) }), "no public key"},
		"our name":                        {with(func(l *subnet.Lease) { l.Node = "self" }), "our own node name"},
		"an IPv4-mapped subnet":           {with(func(l *subnet.Lease) { l.Subnets.V6 = opt.Some(netip.MustParsePrefix("::ffff:10.5.3.0/64")) }), "not one of the network"},
		"host bits in the subnet":         {with(func(l *subnet.Lease) { l.Subnets.V4 = opt.Some(netip.MustParsePrefix("10.5.3.1/24")) }), "not one of the network"},
		"no endpoint":                     {with(func(l *subnet.Lease) { l.Endpoints = opt.Dual[netip.AddrPort]{} }), "no usable endpoint"},
		"endpoint 0.0.0.0":                {at("0.0.0.0:51820"), "no usable endpoint"},
		"endpoint ::":                     {at6("[::]:51820"), "no usable endpoint"},
		"loopback":                        {at("127.0.0.1:51820"), "no usable endpoint"},
		"loopback of IPv6":                {at6("[::1]:51820"), "no usable endpoint"},
		"multicast":                       {at("224.0.0.1:51820"), "no usable endpoint"},
		"broadcast":                       {at("255.255.255.255:51820"), "no usable endpoint"},
		"link-local IPv6 without a link":  {at6("[fe80::1]:51820"), "no usable endpoint"},
		"IPv4-mapped endpoint":            {at6("[::ffff:192.0.2.3]:51820"), "no usable endpoint"},
		"port 0":                          {at("192.0.2.3:0"), "no usable endpoint"},
		"an endpoint in the overlay":      {at("10.5.3.1:51820"), "no usable endpoint"},
		"an endpoint in the IPv6 overlay": {at6("[fd00:5:0:3::1]:51820"), "no usable endpoint"},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			leases := []subnet.Lease{tc.lease, self, older}
			peers, problems := subnet.Validate(n, subnet.Identity{Node: "self", Key: key(1), Subnets: self.Subnets}, leases)
			if len(peers) != 1 || peers[0] != older {
				t.Errorf("peers: got %v, want the older lease alone", peers)
			}
			if !slices.ContainsFunc(problems, func(p subnet.Problem) bool { return strings.Contains(p.Reason, tc.reason) }) {
				t.Errorf("problems: got %v, want one about %q", problems, tc.reason)
			}
		})
	}
}

func TestValidateTakes(t *testing.T) {
	n := parse(t, dualDoc)
	self := subnet.Identity{Node: "self", Key: key(1), Subnets: mustKey(t, "10.5.1.0-24&fd00:5:0:1::-64")}
	cases := map[string]struct{ given, want subnet.Lease }{
		"a node with one family": {given: peer(t, "a", "10.5.2.0-24", 2, 1), want: peer(t, "a", "10.5.2.0-24", 2, 1)},
		"flannel's lease without a port": {
			given: func() subnet.Lease {
				l := peer(t, "", "10.5.2.0-24", 2, 1)
				l.Endpoints.V4 = endpoint("192.0.2.2:0")
				return l
			}(),
			want: peer(t, "", "10.5.2.0-24", 2, 1),
		},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			peers, problems := subnet.Validate(n, self, []subnet.Lease{tc.given})
			if len(problems) != 0 || len(peers) != 1 || peers[0] != tc.want {
				t.Errorf("got %+v, %v", peers, problems)
			}
		})
	}
}

// flannel issue 2073, k3s 5216: the fix for stale peers broke nodes behind a common NAT address.
func TestValidateTakesTwoNodesBehindOneAddress(t *testing.T) {
	a, b := peer(t, "a", "10.5.2.0-24", 2, 1), peer(t, "b", "10.5.3.0-24", 3, 2)
	b.Endpoints.V4 = endpoint("192.0.2.2:51821")
	peers, problems := subnet.Validate(parse(t, dualDoc), subnet.Identity{}, []subnet.Lease{b, a})
	if len(problems) != 0 || !slices.Equal(peers, []subnet.Lease{a, b}) {
		t.Errorf("got %+v, %v", peers, problems)
	}
}

func TestValidateDropsTheHalfOfAFamilyThatIsOff(t *testing.T) {
	n := parse(t, `{"Network":"10.5.0.0/16"}`)
	peers, problems := subnet.Validate(n, subnet.Identity{Node: "self", Key: key(1)}, []subnet.Lease{peer(t, "a", "10.5.2.0-24&fd00:9::-64", 2, 1)})
	if len(problems) != 0 || len(peers) != 1 || peers[0].Subnets != mustKey(t, "10.5.2.0-24") {
		t.Errorf("got %+v, %v", peers, problems)
	}
	peers, problems = subnet.Validate(n, subnet.Identity{}, []subnet.Lease{peer(t, "a", "fd00:9::-64", 2, 1)})
	if len(problems) != 1 || len(peers) != 0 {
		t.Errorf("nothing left: got %+v, %v", peers, problems)
	}
}

func TestValidateKeepsAPeerWhoseOtherEndpointIsBad(t *testing.T) {
	n := parse(t, dualDoc)
	l := peer(t, "a", "10.5.2.0-24", 2, 1)
	l.Endpoints.V6 = endpoint("[::1]:51820")
	peers, problems := subnet.Validate(n, subnet.Identity{}, []subnet.Lease{l})
	if len(peers) != 1 || peers[0].Endpoints.V6.Present() || !peers[0].Endpoints.V4.Present() || len(problems) != 1 {
		t.Errorf("got %+v, %v", peers, problems)
	}
}

func TestValidateSaysThatOurSubnetIsAnothersOlderClaim(t *testing.T) {
	n := parse(t, dualDoc)
	self := peer(t, "self", "10.5.1.0-24&fd00:5:0:1::-64", 1, 100)
	// The identity has no subnets yet: a node that starts from the store.
	_, problems := subnet.Validate(n, subnet.Identity{Node: "self", Key: key(1)}, []subnet.Lease{self, peer(t, "", "10.5.7.0-24&fd00:5:0:1::-64", 2, 50)})
	if len(problems) != 1 || !strings.Contains(problems[0].Reason, "our subnet fd00:5:0:1::/64 is held by the older lease") {
		t.Errorf("got %v", problems)
	}
}

func TestValidateSkipsReservationsThatWait(t *testing.T) {
	peers, problems := subnet.Validate(parse(t, dualDoc), subnet.Identity{}, []subnet.Lease{{Node: "a", Subnets: mustKey(t, "10.5.2.0-24"), Reserved: true}})
	if len(peers) != 0 || len(problems) != 0 {
		t.Errorf("got %v, %v", peers, problems)
	}
}

// For any text of other writers, peers never share a subnet or a key, and order does not matter.
func TestValidatePeersNeverCollide(t *testing.T) {
	n := parse(t, dualDoc)
	self := subnet.Identity{Node: "self", Key: key(1), Subnets: mustKey(t, "10.5.1.0-24&fd00:5:0:1::-64")}
	rapid.Check(t, func(t *rapid.T) {
		var leases []subnet.Lease
		pool4 := []string{"10.5.1.0/24", "10.5.2.0/24", "10.5.3.0/24", "10.5.2.0/25", "10.5.0.0/16", "10.6.0.0/24", "0.0.0.0/0"}
		pool6 := []string{"fd00:5:0:1::/64", "fd00:5:0:2::/64", "fd00:5:0:2::/65", "::/0", "fd00:6::/64"}
		for i := range rapid.IntRange(0, 12).Draw(t, "n") {
			l := subnet.Lease{Node: rapid.SampledFrom([]string{"", "a", "b", "self"}).Draw(t, "node"), Key: key(rapid.ByteRange(0, 5).Draw(t, "key")), Since: int64(i)}
			if rapid.Bool().Draw(t, "has4") {
				l.Subnets = l.Subnets.With(opt.V4, netip.MustParsePrefix(rapid.SampledFrom(pool4).Draw(t, "p4")))
			}
			if rapid.Bool().Draw(t, "has6") {
				l.Subnets = l.Subnets.With(opt.V6, netip.MustParsePrefix(rapid.SampledFrom(pool6).Draw(t, "p6")))
			}
			if rapid.IntRange(0, 4).Draw(t, "endpoint") > 0 {
				l.Endpoints = l.Endpoints.With(opt.V4, netip.MustParseAddrPort("192.0.2.9:51820"))
			}
			leases = append(leases, l)
		}
		peers, problems := subnet.Validate(n, self, leases)
		for i, a := range peers {
			for _, b := range peers[i+1:] {
				if a.Key == b.Key {
					t.Fatalf("%+v and %+v have one key", a, b)
				}
				for f, p := range a.Subnets.All() {
					if q, ok := b.Subnets.Of(f).Get(); ok && p.Overlaps(q) {
						t.Fatalf("%+v and %+v overlap", a, b)
					}
				}
			}
			for f, p := range a.Subnets.All() {
				r, _ := n.Ranges.Of(f).Get()
				own, _ := self.Subnets.Of(f).Get()
				if p.Bits() != r.SubnetLen || !r.Network.Contains(p.Addr()) || p.Overlaps(own) || a.Key == self.Key {
					t.Fatalf("peer %+v", a)
				}
			}
		}
		shuffled := rapid.Permutation(leases).Draw(t, "order")
		peers2, problems2 := subnet.Validate(n, self, shuffled)
		if !slices.Equal(peers, peers2) || !slices.Equal(problems, problems2) {
			t.Fatalf("order matters: %v, then %v", peers, peers2)
		}
	})
}
