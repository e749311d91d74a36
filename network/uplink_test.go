package network_test

import (
	"net/netip"
	"regexp"
	"strings"
	"testing"

	"github.com/loden-net/loden/config"
	"github.com/loden-net/loden/config/opt"
	"github.com/loden-net/loden/network"
)

// machine is a view with two uplinks:
//
//	eth0  192.0.2.10, 2001:db8::10 (permanent), a temporary and a deprecated IPv6 address; default routes, metric 200
//	eth1  198.51.100.7; default route, metric 100
//	lab   169.254.3.3 alone
func machine() network.Inventory {
	addr := func(s string) network.LinkAddress {
		return network.LinkAddress{Addr: netip.MustParseAddr(s), Bits: 24, Permanent: true}
	}
	temporary, deprecated, learned := addr("2001:db8::aaaa"), addr("2001:db8::bbbb"), addr("2001:db8::cccc")
	temporary.Temporary, deprecated.Deprecated, learned.Permanent = true, true, false
	return network.Inventory{
		Links: []network.Link{
			{Name: "eth0", MTU: 1500, Addresses: []network.LinkAddress{
				addr("192.0.2.10"), addr("fe80::1"), temporary, deprecated, learned, addr("2001:db8::10"),
			}},
			{Name: "eth1", MTU: 9000, Addresses: []network.LinkAddress{addr("198.51.100.7")}},
			{Name: "lab", MTU: 1400, Addresses: []network.LinkAddress{addr("169.254.3.3")}},
		},
		Routes: []network.DefaultRoute{
			{Family: opt.V4, Link: "eth0", Metric: 200}, {Family: opt.V4, Link: "eth1", Metric: 100},
			{Family: opt.V6, Link: "eth0", Metric: 1024, RA: true},
		},
	}
}

func TestUplinksFollowFlannelsOrder(t *testing.T) {
	reach := machine()
	reach.Reach = opt.Some(network.Reach{Link: "eth0", Source: netip.MustParseAddr("192.0.2.10")})
	for _, tt := range []struct {
		name string
		node config.UplinkChoice
		view network.Inventory
		v4   string // "interface local public", empty for none
		v6   string
	}{
		{"default routes, lowest metric, each family its own interface", config.UplinkChoice{}, machine(),
			"eth1 198.51.100.7 198.51.100.7", "eth0 2001:db8::10 2001:db8::10"},
		{"by name", config.UplinkChoice{Ifaces: []string{"eth9", "eth0"}}, machine(), "eth0 192.0.2.10 192.0.2.10", "eth0 2001:db8::10 2001:db8::10"},
		{"by address, the very one", config.UplinkChoice{Ifaces: []string{"2001:db8::cccc"}}, machine(), "eth0 192.0.2.10 192.0.2.10", "eth0 2001:db8::cccc 2001:db8::cccc"},
		{"by name, one family only", config.UplinkChoice{Ifaces: []string{"eth1"}}, machine(), "eth1 198.51.100.7 198.51.100.7", ""},
		{"by regular expression over addresses first", config.UplinkChoice{Regexes: []*regexp.Regexp{regexp.MustCompile(`^198\.`), regexp.MustCompile("eth0")}}, machine(), "eth1 198.51.100.7 198.51.100.7", ""},
		{"then over names", config.UplinkChoice{Regexes: []*regexp.Regexp{regexp.MustCompile("^la")}}, machine(), "lab 169.254.3.3 169.254.3.3", ""},
		{"by what the kernel would use", config.UplinkChoice{CanReach: opt.Some(netip.MustParseAddr("192.0.2.1"))}, reach, "eth0 192.0.2.10 192.0.2.10", "eth0 2001:db8::10 2001:db8::10"},
		{"public address that is local", config.UplinkChoice{Public: opt.Dual[netip.Addr]{V4: opt.Some(netip.MustParseAddr("192.0.2.10"))}}, machine(), "eth0 192.0.2.10 192.0.2.10", "eth0 2001:db8::10 2001:db8::10"},
		{"public address behind a NAT", config.UplinkChoice{Ifaces: []string{"eth1"}, Public: opt.Dual[netip.Addr]{V4: opt.Some(netip.MustParseAddr("203.0.113.1"))}}, machine(), "eth1 198.51.100.7 203.0.113.1", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			up, err := network.Uplinks(tt.node, tt.view, opt.Dual[netip.Addr]{})
			if err != nil {
				t.Fatal(err)
			}
			for f, want := range map[opt.Family]string{opt.V4: tt.v4, opt.V6: tt.v6} {
				got := ""
				if u, ok := up.Of(f).Get(); ok {
					got = strings.Join([]string{u.Name, u.Address.String(), u.Public.String()}, " ")
				}
				if got != want {
					t.Errorf("%s: got %q, want %q", f, got, want)
				}
			}
		})
	}
}

func TestUplinkErrorsSayWhatToDo(t *testing.T) {
	for _, tt := range []struct {
		name string
		node config.UplinkChoice
		view network.Inventory
		want string
	}{
		{"no such interface", config.UplinkChoice{Ifaces: []string{"wlan0"}}, machine(), "this host has eth0, eth1, lab"},
		{"no such expression", config.UplinkChoice{Regexes: []*regexp.Regexp{regexp.MustCompile("^wlan")}}, machine(), "--iface-regex"},
		{"public address not local", config.UplinkChoice{Public: opt.Dual[netip.Addr]{V4: opt.Some(netip.MustParseAddr("203.0.113.1"))}}, machine(), "name the interface with --iface too"},
		{"nothing at all", config.UplinkChoice{}, network.Inventory{}, "name the interface with --iface"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if _, err := network.Uplinks(tt.node, tt.view, opt.Dual[netip.Addr]{}); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
		})
	}
}

func TestSurveyNamesEveryInterfaceThatLeadsOffTheNode(t *testing.T) {
	out, err := network.StateOf(config.UplinkChoice{Ifaces: []string{"lab"}}, machine())
	if err != nil || out.Exits.String() != "eth0 eth1 lab" {
		t.Errorf("got %q, %v", out.Exits, err)
	}
}
