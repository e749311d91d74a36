package network_test

import (
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"

	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"
	"pgregory.net/rapid"

	"github.com/loden-net/loden/config"
	"github.com/loden-net/loden/config/opt"
	"github.com/loden-net/loden/config/set"
	"github.com/loden-net/loden/network"
	"github.com/loden-net/loden/network/firewall"
	"github.com/loden-net/loden/subnet"
	"github.com/loden-net/loden/test/sandbox/linediff"
)

const dualDocument = `{"Network":"10.244.0.0/16","EnableIPv6":true,"IPv6Network":"fd44::/48",` +
	`"Backend":{"Type":"wireguard","PersistentKeepaliveInterval":25}}`

// failer is the part of *testing.T and *rapid.T that the helpers need.
type failer interface {
	Helper()
	Fatal(args ...any)
}

func document(t failer, text string) config.Network {
	t.Helper()
	n, err := config.ParseNetwork([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func key(i int) (k wgtypes.Key) {
	k[0], k[1], k[31] = byte(i), byte(i>>8), 0x40
	return k
}

// node returns node i's lease: 10.244.i.0/24, fd44:0:0:i::/64, reached at 192.0.2.i and
// 2001:db8::i.
func node(i int) subnet.Lease {
	return subnet.Lease{
		Node: fmt.Sprintf("n%d", i), Key: key(i), Since: int64(i),
		Subnets: opt.Dual[netip.Prefix]{
			V4: opt.Some(netip.MustParsePrefix(fmt.Sprintf("10.244.%d.0/24", i))),
			V6: opt.Some(netip.MustParsePrefix(fmt.Sprintf("fd44:0:0:%x::/64", i))),
		},
		Endpoints: opt.Dual[netip.AddrPort]{
			V4: opt.Some(netip.MustParseAddrPort(fmt.Sprintf("192.0.2.%d:51820", i))),
			V6: opt.Some(netip.MustParseAddrPort(fmt.Sprintf("[2001:db8::%x]:51820", i))),
		},
	}
}

// inputs returns node 1 of a cluster of size nodes.
func inputs(t failer, doc string, size int) network.Inputs {
	in := network.Inputs{
		Network: document(t, doc),
		Self: network.Self{Name: "n1", Key: key(1), Interface: "loden0",
			Policy: firewall.Policy{Masq: true, Forward: true, Guard: firewall.Enforce}},
		HostState: network.HostState{
			Uplinks: opt.Dual[network.Uplink]{
				V4: opt.Some(network.Uplink{Name: "eth0", MTU: 1500, Address: netip.MustParseAddr("192.0.2.1"), Public: netip.MustParseAddr("192.0.2.1")}),
				V6: opt.Some(network.Uplink{Name: "eth0", MTU: 1500, Address: netip.MustParseAddr("2001:db8::1"), Public: netip.MustParseAddr("2001:db8::1")}),
			},
			Exits: set.NewNames("eth0", "eth1"), AcceptRA: set.NewNames("eth0"),
		},
		Lease: opt.Some(node(1)),
	}
	for i := 1; i <= size; i++ {
		in.Leases = in.Leases.With(node(i))
	}
	return in
}

// text renders a state for a reader.
func text(s network.State) string {
	var b strings.Builder
	d, ok := s.Device.Get()
	if !ok {
		return "nothing\n"
	}
	fmt.Fprintf(&b, "device port %d mtu %d addresses %v %v\n", d.Port, d.MTU, d.Addresses.V4, d.Addresses.V6)
	for p := range d.Peers.All() {
		fmt.Fprintf(&b, "peer %d at %s: %v %v keepalive %v\n", p.Key[0], p.Endpoint, p.Subnets.V4, p.Subnets.V6, p.Keepalive)
	}
	for _, r := range s.Routes {
		fmt.Fprintf(&b, "route %v\n", r)
	}
	for f, m := range s.Firewall.Masq.All() {
		fmt.Fprintf(&b, "masquerade %s %v\n", f, m.Scope)
	}
	for f, g := range s.Firewall.Guard.Scopes.All() {
		fmt.Fprintf(&b, "guard %s %v but %s, uplinks %v\n", f, g, s.Firewall.Guard.Tunnel, s.Firewall.Guard.Uplinks)
	}
	for _, c := range s.Sysctls {
		fmt.Fprintf(&b, "sysctl %s=%s\n", c.Path, c.Value)
	}
	env, _ := s.Env.Get()
	b.Write(env.Bytes())
	return b.String()
}

func TestPlanOfADualStackNode(t *testing.T) {
	state, problems := network.Plan(inputs(t, dualDocument, 2))
	want := `device port 51820 mtu 1420 addresses 10.244.1.0 fd44:0:0:1::
peer 2 at 192.0.2.2:51820: 10.244.2.0/24 fd44:0:0:2::/64 keepalive 25s
route 10.244.0.0/16 unreachable
route 10.244.0.0/16 through the tunnel
route fd44::/48 unreachable
route fd44::/48 through the tunnel
masquerade IPv4 10.244.0.0/16 10.244.1.0/24
masquerade IPv6 fd44::/48 fd44:0:0:1::/64
guard IPv4 10.244.0.0/16 10.244.1.0/24 but loden0, uplinks eth0 eth1
guard IPv6 fd44::/48 fd44:0:0:1::/64 but loden0, uplinks eth0 eth1
sysctl net/ipv4/ip_forward=1
sysctl net/ipv6/conf/eth0/accept_ra=2
sysctl net/ipv6/conf/all/forwarding=1
FLANNEL_NETWORK=10.244.0.0/16
FLANNEL_SUBNET=10.244.1.1/24
FLANNEL_IPV6_NETWORK=fd44::/48
FLANNEL_IPV6_SUBNET=fd44:0:0:1::1/64
FLANNEL_MTU=1420
FLANNEL_IPMASQ=true
`
	if diff := linediff.Of(want, text(state)); diff != "" || len(problems) > 0 {
		t.Errorf("problems %v, state differs (-want +got):\n%s", problems, diff)
	}
}

func TestPlanOfASingleFamilyMentionsTheOtherNowhere(t *testing.T) {
	for _, tt := range []struct{ name, doc, absent string }{
		{"IPv4", `{"Network":"10.244.0.0/16"}`, "fd44"},
		{"IPv6", `{"EnableIPv4":false,"EnableIPv6":true,"IPv6Network":"fd44::/48"}`, "10.244"},
		{"IPv6 off, its network left in the document", `{"Network":"10.244.0.0/16","IPv6Network":"fd44::/48"}`, "fd44"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			state, _ := network.Plan(inputs(t, tt.doc, 3)) // the leases still have both families
			if got := text(state); strings.Contains(got, tt.absent) || !strings.Contains(got, "peer 3") {
				t.Errorf("got:\n%s", got)
			}
		})
	}
}

func TestKernelWireGuardsOwnSettingIsPlanned(t *testing.T) {
	in := inputs(t, dualDocument, 1)
	for _, kernel := range []bool{false, true} {
		in.Self.Kernel = kernel
		state, _ := network.Plan(in)
		if got := slices.Contains(state.Sysctls, network.Sysctl{Path: "net/ipv4/conf/all/send_redirects", Value: "0"}); got != kernel {
			t.Errorf("kernel %v: settings %v", kernel, state.Sysctls)
		}
	}
}

func TestPlanWithoutAnOwnLeaseIsNothing(t *testing.T) {
	in := inputs(t, dualDocument, 3)
	in.Lease = opt.None[subnet.Lease]()
	if state, _ := network.Plan(in); !reflect.DeepEqual(state, network.State{}) {
		t.Errorf("got:\n%s", text(state))
	}
}

func TestMTUIsASumOfWhatTheUnderlayNeeds(t *testing.T) {
	for _, tt := range []struct {
		name   string
		doc    string
		change func(*network.Inputs)
		want   int
	}{
		{"both families of underlay", `{"Network":"10.244.0.0/16"}`, func(*network.Inputs) {}, 1500 - 40 - 8 - 32},
		{"IPv4 underlay alone", `{"Network":"10.244.0.0/16"}`, func(in *network.Inputs) { in.Uplinks = in.Uplinks.Without(opt.V6) }, 1500 - 20 - 8 - 32},
		{"mode ipv4", `{"Network":"10.244.0.0/16","Backend":{"Type":"wireguard","Mode":"ipv4"}}`, func(*network.Inputs) {}, 1440},
		{"mode ipv6", `{"Network":"10.244.0.0/16","Backend":{"Type":"wireguard","Mode":"ipv6"}}`, func(*network.Inputs) {}, 1420},
		{"the smaller uplink", `{"Network":"10.244.0.0/16"}`, func(in *network.Inputs) {
			u, _ := in.Uplinks.V4.Get()
			u.MTU = 1400
			in.Uplinks = in.Uplinks.With(opt.V4, u)
		}, 1320},
		{"given", `{"Network":"10.244.0.0/16","Backend":{"Type":"wireguard","MTU":9000}}`, func(*network.Inputs) {}, 8920},
	} {
		t.Run(tt.name, func(t *testing.T) {
			in := inputs(t, tt.doc, 1)
			tt.change(&in)
			if got := network.MTU(in); got != tt.want {
				t.Errorf("got %d, want %d", got, tt.want)
			}
		})
	}
}

func TestPeersWithoutACommonUnderlayAreProblems(t *testing.T) {
	in := inputs(t, dualDocument, 3)
	in.Uplinks = in.Uplinks.Without(opt.V4)
	second := node(2)
	second.Endpoints = second.Endpoints.Without(opt.V6)
	in.Leases = in.Leases.With(second)
	state, problems := network.Plan(in)
	d, _ := state.Device.Get()
	if p := d.Peers.Slice(); len(p) != 1 || p[0].Key != key(3) || p[0].Endpoint.Addr().Is4() || len(problems) != 1 {
		t.Errorf("got peers %v, problems %v", d.Peers, problems)
	}
}

// Plan is total, never makes this node its own
// peer, and never gives a prefix to two peers.
func TestPlanProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		in := inputs(t, dualDocument, 0)
		for range rapid.IntRange(0, 12).Draw(t, "leases") {
			l := node(rapid.IntRange(1, 5).Draw(t, "node"))
			l.Key = key(rapid.IntRange(0, 5).Draw(t, "key"))
			l.Since = rapid.Int64Range(1, 4).Draw(t, "since")
			if f := rapid.IntRange(0, 3).Draw(t, "families"); f > 1 {
				l.Subnets = l.Subnets.Without(opt.Family(f - 2))
			}
			in.Leases = in.Leases.With(l)
		}
		state, problems := network.Plan(in)
		d, _ := state.Device.Get()
		owners := map[netip.Prefix]wgtypes.Key{}
		for p := range d.Peers.All() {
			if p.Key == in.Self.Key {
				t.Fatalf("this node is its own peer; problems %v", problems)
			}
			for _, s := range p.Subnets.All() {
				if other, taken := owners[s]; taken {
					t.Fatalf("%s belongs to %v and %v", s, other, p.Key)
				}
				owners[s] = p.Key
			}
		}
	})
}
