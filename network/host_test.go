package network_test

import (
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/loden-net/loden/config"
	"github.com/loden-net/loden/config/opt"
	"github.com/loden-net/loden/config/set"
	"github.com/loden-net/loden/network"
	"github.com/loden-net/loden/subnet"
)

// at returns a permanent address with its network.
func at(s string) network.LinkAddress {
	p := netip.MustParsePrefix(s)
	return network.LinkAddress{Addr: p.Addr(), Bits: p.Bits(), Permanent: true}
}

func learned(a network.LinkAddress) network.LinkAddress { a.Permanent = false; return a }

func deprecated(a network.LinkAddress) network.LinkAddress { a.Deprecated = true; return a }

func temporary(a network.LinkAddress) network.LinkAddress { a.Temporary = true; return a }

func TestAnnouncedAddressIsStickyAndNeverAVirtualAddressBesideABetter(t *testing.T) {
	const none = "none"
	for _, tt := range []struct {
		name      string
		addresses []network.LinkAddress
		source    string // the default route's preferred source
		gateway   string
		announced string
		want      string
	}{
		{"a virtual address beside a learned address", []network.LinkAddress{at("192.0.2.100/32"), learned(at("192.0.2.2/24"))}, none, none, none, "192.0.2.2"},
		{"a virtual address that was announced moves to the better", []network.LinkAddress{at("192.0.2.100/32"), at("192.0.2.2/24")}, none, none, "192.0.2.100", "192.0.2.2"},
		{"a single address alone, as in some clouds", []network.LinkAddress{learned(at("10.128.0.2/32"))}, none, none, none, "10.128.0.2"},
		{"the kernel lists the newest IPv6 address first", []network.LinkAddress{at("2001:db8::9/64"), at("2001:db8::2/64")}, none, none, "2001:db8::2", "2001:db8::2"},
		{"a virtual IPv6 address", []network.LinkAddress{at("2001:db8::100/128"), learned(at("2001:db8::2/64"))}, none, none, "2001:db8::2", "2001:db8::2"},
		{"the announced address beside the preferred source", []network.LinkAddress{at("192.0.2.2/24"), at("192.0.2.3/24")}, "192.0.2.2", none, "192.0.2.3", "192.0.2.3"},
		{"the announced address has gone", []network.LinkAddress{at("192.0.2.3/24"), at("192.0.2.2/24")}, "192.0.2.2", none, "192.0.2.4", "192.0.2.2"},
		{"the preferred source, which the operator chose as a single address", []network.LinkAddress{at("192.0.2.3/24"), at("203.0.113.9/32")}, "203.0.113.9", none, none, "203.0.113.9"},
		{"the address in the gateway's network", []network.LinkAddress{at("10.9.0.1/24"), learned(at("192.0.2.2/24"))}, none, "192.0.2.1", none, "192.0.2.2"},
		{"the announced address is deprecated now", []network.LinkAddress{deprecated(at("2001:db8::2/64")), learned(at("2001:db8:1::2/64"))}, none, none, "2001:db8::2", "2001:db8:1::2"},
		{"a deprecated address alone is still usable", []network.LinkAddress{deprecated(at("2001:db8::2/64"))}, none, none, "2001:db8::2", "2001:db8::2"},
		{"a temporary address beside a learned address", []network.LinkAddress{temporary(learned(at("2001:db8::7/64"))), learned(at("2001:db8::2/64"))}, none, none, "2001:db8::7", "2001:db8::2"},
		{"link-local addresses of IPv6", []network.LinkAddress{at("fe80::1/64")}, none, none, none, none},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := opt.FamilyOf(tt.addresses[0].Addr)
			r := network.DefaultRoute{Family: f, Link: "eth0"}
			if a, err := netip.ParseAddr(tt.source); err == nil {
				r.Source = opt.Some(a)
			}
			if a, err := netip.ParseAddr(tt.gateway); err == nil {
				r.Gateway = opt.Some(a)
			}
			v := network.Inventory{Links: []network.Link{{Name: "eth0", MTU: 1500, Addresses: tt.addresses}}, Routes: []network.DefaultRoute{r}}
			var announced opt.Dual[netip.Addr]
			if a, err := netip.ParseAddr(tt.announced); err == nil {
				announced = announced.With(f, a)
			}
			up, err := network.Uplinks(config.UplinkChoice{}, v, announced)
			got := none
			if u, ok := up.Of(f).Get(); ok {
				got = u.Address.String()
			}
			if got != tt.want || (err != nil) != (tt.want == none) {
				t.Errorf("got %s, want %s (%v)", got, tt.want, err)
			}
		})
	}
}

func TestLeaseRemembersTheAnnouncedAddressAcrossARestart(t *testing.T) {
	v := network.Inventory{
		Links:  []network.Link{{Name: "eth0", MTU: 1500, Addresses: []network.LinkAddress{at("2001:db8::9/64"), at("2001:db8::1/64")}}},
		Routes: []network.DefaultRoute{{Family: opt.V6, Link: "eth0"}},
	}
	in := network.Inputs{Lease: opt.Some(node(1))} // announces 2001:db8::1
	s, err := network.StateFor(config.UplinkChoice{}, v, in)
	if u, _ := s.Uplinks.V6.Get(); err != nil || u.Public.String() != "2001:db8::1" {
		t.Errorf("got %v, %v", s.Uplinks, err)
	}
}

// A host with BGP has its address on the loopback, and none on its uplinks.
func TestUnnumberedUplinkUsesTheAddressOfTheLoopback(t *testing.T) {
	a := netip.MustParseAddr("198.51.100.2")
	v := network.Inventory{
		Links:    []network.Link{{Name: "eth0", MTU: 1400, Addresses: []network.LinkAddress{at("fe80::1/64")}}, {Name: "eth1", MTU: 1500}},
		Loopback: []network.LinkAddress{at("203.0.113.1/32"), at("198.51.100.2/32")},
		Routes:   []network.DefaultRoute{{Family: opt.V4, Link: "eth0", Source: opt.Some(a)}},
	}
	for name, c := range map[string]config.UplinkChoice{
		"no flag":                           {},
		"--iface eth0":                      {Ifaces: []string{"eth0"}},
		"--public-ip":                       {Public: opt.Dual[netip.Addr]{V4: opt.Some(a)}},
		"--iface with the address":          {Ifaces: []string{"198.51.100.2"}},
		"--iface-regex of the address":      {Regexes: []*regexp.Regexp{regexp.MustCompile(`198\.51.*`)}},
		"--iface eth0 --public-ip the same": {Ifaces: []string{"eth0"}, Public: opt.Dual[netip.Addr]{V4: opt.Some(a)}},
	} {
		up, err := network.Uplinks(c, v, opt.Dual[netip.Addr]{})
		if u, _ := up.V4.Get(); err != nil || u.Name != "eth0" || u.MTU != 1400 || u.Address != a || u.Public != a {
			t.Errorf("%s: got %v, %v", name, up, err)
		}
	}
	if _, err := network.Uplinks(config.UplinkChoice{Ifaces: []string{"lo"}}, v, opt.Dual[netip.Addr]{}); err == nil || !strings.Contains(err.Error(), "the interface of the default route") {
		t.Errorf("the loopback itself: got %v", err)
	}
	if up, err := network.Uplinks(config.UplinkChoice{Ifaces: []string{"eth1"}}, v, opt.Dual[netip.Addr]{}); err == nil {
		t.Errorf("an interface without a route: got %v", up)
	}
}

func TestGuardCoversEachKindOfLinkThatLeadsOffTheNode(t *testing.T) {
	link := func(name, kind, bridge string, addresses ...network.LinkAddress) network.Link {
		return network.Link{Name: name, Kind: kind, Up: true, MTU: 1500, Bridge: bridge, Addresses: addresses}
	}
	down := link("eth9", "", "")
	down.Up = false
	v := network.Inventory{
		Routes: []network.DefaultRoute{{Family: opt.V4, Link: "eth0"}},
		Links: []network.Link{
			link("eth0", "", "", at("192.0.2.2/24")),
			link("eth1", "", ""), link("vlan7", "vlan", ""), link("bond0", "bond", ""), // physical, without address
			link("br0", "bridge", ""), link("eth2", "", "br0"), // a bridge with a physical port
			link("veth1", "veth", "", at("10.50.0.2/24")),        // a foreign network behind a pod's kind of link
			link("virbr0", "bridge", "", at("192.168.122.1/24")), // virtual machines
			link("wg9", "wireguard", ""), link("tailscale0", "tun", "", at("100.64.0.7/32")), link("vxlan0", "vxlan", ""),
			link("cni0", "bridge", "", at("10.244.1.1/24"), at("192.168.9.1/24")), link("pod1", "veth", "cni0"),
			link("pod2", "veth", "", at("192.0.2.2/32")), link("pod3", "veth", "", at("169.254.1.1/32")),
			link("docker1", "bridge", "", at("10.244.77.1/24")), // inside the overlay: a Problem, no uplink
			link("kube-ipvs0", "dummy", "", at("10.96.0.1/32")), link("empty", "bridge", ""), link("tap3", "tap", ""), down,
		},
	}
	s, err := network.StateFor(config.UplinkChoice{}, v, inputs(t, dualDocument, 1))
	want := "bond0 br0 eth0 eth1 eth2 tailscale0 veth1 virbr0 vlan7 vxlan0 wg9"
	if err != nil || s.Outward.String() != want || s.Exits.String() != "eth0" {
		t.Errorf("got %s, want %s (%v)", s.Outward, want, err)
	}
	in := inputs(t, dualDocument, 1)
	in.Exits, in.Outward = s.Exits, s.Outward
	state, _ := network.Plan(in)
	if got := state.Firewall.Guard.Uplinks.String(); got != want {
		t.Errorf("the guard covers %s, want %s", got, want)
	}
}

func TestRouterAdvertisementsStayWithTheirOwner(t *testing.T) {
	v := network.Inventory{
		Routes: []network.DefaultRoute{{Family: opt.V6, Link: "eth0", RA: true}},
		Links: []network.Link{
			{Name: "eth0", MTU: 1500, AcceptRA: 0, Addresses: []network.LinkAddress{at("2001:db8::2/64")}}, // networkd's
			{Name: "eth1", MTU: 1500, AcceptRA: 1, Addresses: []network.LinkAddress{at("2001:db8:1::2/64")}},
			{Name: "eth2", MTU: 1500, AcceptRA: 2, Addresses: []network.LinkAddress{at("2001:db8:2::2/64")}},
		},
	}
	s, err := network.StateFor(config.UplinkChoice{}, v, network.Inputs{})
	if err != nil || s.AcceptRA.String() != "eth1 eth2" {
		t.Errorf("got %s, %v", s.AcceptRA, err)
	}
}

func TestFamilyThatCannotWorkLeavesTheOtherAlone(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(*network.Inputs)
		want   string
	}{
		{"a tunnel MTU below 1280", func(in *network.Inputs) {
			u, _ := in.Uplinks.V4.Get()
			u.MTU = 1300
			in.Uplinks = in.Uplinks.With(opt.V4, u)
		}, "MTU is 1220"},
		{"a kernel without IPv6", func(in *network.Inputs) { in.NoIPv6 = true }, "without IPv6"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			in := inputs(t, dualDocument, 2)
			tt.change(&in)
			state, problems := network.Plan(in)
			got := text(state)
			if strings.Contains(got, "route fd44") || strings.Contains(got, "forwarding") || !strings.Contains(got, "route 10.244.0.0/16 through") ||
				strings.Contains(got, "FLANNEL_IPV6") || len(problems) != 1 || !strings.Contains(problems[0].Reason, tt.want) {
				t.Errorf("problems %v, state:\n%s", problems, got)
			}
			_, before := network.Preflight(in)
			if !slices.Equal(before, problems) {
				t.Errorf("check says %v, run says %v", before, problems)
			}
			v6 := inputs(t, `{"EnableIPv4":false,"EnableIPv6":true,"IPv6Network":"fd44::/48"}`, 2)
			tt.change(&v6)
			if state, problems := network.Plan(v6); state.Device.Present() || len(problems) != 1 {
				t.Errorf("no family left: problems %v, state:\n%s", problems, text(state))
			}
		})
	}
}

func TestForeignRouteInTheOverlayIsAProblemThatNamesRouteAndDevice(t *testing.T) {
	shadow := func(dst, link string) network.Shadow {
		return network.Shadow{Dst: netip.MustParsePrefix(dst), Link: link}
	}
	for _, tt := range []struct {
		name string
		in   network.Shadow
		lan  string // connected to an uplink
		run  string // in the reason; "" for no Problem
		only bool   // a Problem before any lease is known
	}{
		{"docker0 over a peer", shadow("10.244.2.0/24", "docker0"), "", `hides subnet 10.244.2.0/24 of node "n2"`, true},
		{"docker0 over this node's own subnet", shadow("10.244.0.0/20", "docker0"), "", "this node's own subnet 10.244.1.0/24", true},
		{"a route where no peer is yet", shadow("10.244.9.0/24", "eth1"), "", "subnets that other nodes may get", true},
		{"a LAN where no peer is", shadow("10.244.9.0/24", "eth0"), "10.244.9.0/24", "", false},
		{"a LAN over a peer", shadow("10.244.2.0/24", "eth0"), "10.244.2.0/24", `of node "n2"`, false},
		{"IPv6", shadow("fd44:0:0:2::/64", "eth1"), "", "fd44:0:0:2::/64", true},
		{"an unreachable route", shadow("10.244.2.9/32", ""), "", `of node "n2"`, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			in := inputs(t, dualDocument, 3)
			in.Shadows = []network.Shadow{tt.in}
			if tt.lan != "" {
				in.Underlay = set.NewPrefixes(netip.MustParsePrefix(tt.lan))
			}
			_, problems := network.Plan(in)
			if got := problemText(problems, tt.in); !strings.Contains(got, tt.run) || (got == "") != (tt.run == "") {
				t.Errorf("run: got %q, want %q", got, tt.run)
			}
			_, problems = network.Preflight(in)
			if got := problemText(problems, tt.in); (got != "") != tt.only {
				t.Errorf("before a lease: got %q", got)
			}
			if got := in.Avoid(); len(got) != 1 || got[0] != tt.in.Dst {
				t.Errorf("avoids %v", got)
			}
		})
	}
	in := inputs(t, `{"Network":"10.244.0.0/16","SubnetMin":"10.244.1.0","SubnetMax":"10.244.99.0"}`, 3)
	in.Shadows = []network.Shadow{shadow("10.244.200.0/24", "eth1")}
	if _, problems := network.Plan(in); len(problems) != 0 {
		t.Errorf("outside of the range for subnets: %v", problems)
	}
}

// problemText returns the reason of the only Problem, which must name the route.
func problemText(problems []subnet.Problem, s network.Shadow) string {
	if len(problems) == 0 {
		return ""
	}
	if len(problems) > 1 || problems[0].Object != s.String() || !strings.Contains(s.String(), s.Dst.String()) || !strings.Contains(s.String(), s.Link) {
		return "wrong object: " + problems[0].Object
	}
	return problems[0].Reason
}

func TestDocumentThatRoutesTheStoreIntoTheTunnelIsAProblem(t *testing.T) {
	lan := []netip.Prefix{netip.MustParsePrefix("10.244.9.0/24"), netip.MustParsePrefix("192.0.2.0/24")}
	for _, tt := range []struct {
		name, doc, addr string
		want            bool
	}{
		{"a store outside the overlay", dualDocument, "198.51.100.9", false},
		{"the public /8 of the store", `{"Network":"198.0.0.0/8"}`, "198.51.100.9", true},
		{"a store on the LAN inside the overlay", dualDocument, "10.244.9.9", false},
		{"a store on the LAN, overlay of a public /8", `{"Network":"192.0.0.0/8"}`, "192.0.2.9", false},
		{"a store in the overlay off the LAN", dualDocument, "10.244.10.9", true},
		{"IPv6", dualDocument, "fd44::9", true},
		{"a mapped address", dualDocument, "::ffff:10.244.10.9", true},
	} {
		problems := network.RoutedIntoTunnel(document(t, tt.doc), lan, map[string]netip.Addr{"etcd": netip.MustParseAddr(tt.addr)})
		if (len(problems) == 1) != tt.want || tt.want && (problems[0].Object != "etcd" || !strings.Contains(problems[0].Reason, "routed into the tunnel")) {
			t.Errorf("%s: got %v", tt.name, problems)
		}
	}
}

func TestGatewayStoreAndEndpointsOfPeersMustStayOutsideOfTheTunnel(t *testing.T) {
	in := inputs(t, `{"Network":"192.0.0.0/8"}`, 3)
	in.Gateways = map[string]netip.Addr{"gateway of eth0": netip.MustParseAddr("192.0.2.254")}
	store := map[string]netip.Addr{"etcd": netip.MustParseAddr("198.51.100.9")}
	var names []string
	for _, p := range network.OutsideProblems(in, store) {
		names = append(names, p.Object)
	}
	want := []string{`endpoint 192.0.2.2:51820 of node "n2"`, `endpoint 192.0.2.3:51820 of node "n3"`, "gateway of eth0"}
	if !slices.Equal(names, want) {
		t.Errorf("off the LAN: got %q, want %q", names, want)
	}
	in.Underlay = set.NewPrefixes(netip.MustParsePrefix("192.0.2.0/24"))
	if problems := network.OutsideProblems(in, store); len(problems) != 0 {
		t.Errorf("on the LAN: got %v", problems)
	}
}
