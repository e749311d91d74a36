package backend

import (
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/loden-net/loden/config/opt"
	"github.com/loden-net/loden/config/sorted"
)

func TestEndpointThatIsRoutedIntoTheTunnelIsAProblemWithARemedy(t *testing.T) {
	prefix := func(s string) opt.Dual[netip.Prefix] {
		return opt.Dual[netip.Prefix]{}.With(opt.V4, netip.MustParsePrefix(s))
	}
	peers := []Peer{
		{Key: key(1), Endpoint: netip.MustParseAddrPort("192.0.2.1:51820"), Subnets: prefix("10.244.1.0/24")},
		{Key: key(2), Endpoint: netip.MustParseAddrPort("10.244.1.9:51820"), Subnets: prefix("10.244.2.0/24")}, // behind peer 1
		{Key: key(3), Endpoint: netip.MustParseAddrPort("10.244.1.7:51820"), Subnets: prefix("10.244.3.0/24")}, // by a route of its own
	}
	var asked []string
	got := loops(sorted.Of(peers...), func(a netip.Addr) bool {
		asked = append(asked, a.String())
		return a.String() == "10.244.1.9"
	})
	if len(got) != 1 || got[0].Object != "peer "+key(2).String() || !strings.Contains(got[0].Reason, "add a route to 10.244.1.9 by an uplink") {
		t.Errorf("got %+v", got)
	}
	if len(asked) != 2 {
		t.Errorf("the kernel was asked for the routes to %q", asked)
	}
}

func TestStatusShowsProblemsAndTheDropsOfTheEngine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newFakeNode(t, NewFake())
		n.Drop("no-peer", 7)
		n.want.MTU = MinIPv6MTU - 1
		n.want.Addresses = opt.Dual[netip.Addr]{}.With(opt.V6, netip.MustParseAddr("fd44:1::"))
		n.apply()
		s, err := n.device.Status(t.Context())
		if err != nil || s.Drops["no-peer"] != 7 || len(s.Problems) != 1 || !strings.Contains(s.Problems[0].Reason, "raise the MTU of the uplink to 1360") {
			t.Errorf("status: %+v, %v", s, err)
		}
		n.want.MTU = MinIPv6MTU
		n.apply()
		if s, err := n.device.Status(t.Context()); err != nil || len(s.Problems) != 0 {
			t.Errorf("status: %+v, %v", s, err)
		}
	})
}
