package network_test

import (
	"net/netip"
	"testing"

	"github.com/loden-net/loden/config/opt"
	"github.com/loden-net/loden/network"
	"github.com/loden-net/loden/network/firewall"
)

// TestFirewallIsToldWhereHandshakesArrive: without it a closed port would be no Problem.
func TestFirewallIsToldWhereHandshakesArrive(t *testing.T) {
	in := inputs(t, dualDocument, 2)
	in.Self.Port = 4000
	state, _ := network.Plan(in)
	want := opt.Dual[firewall.Listening]{
		V4: opt.Some(firewall.Listening{Uplink: "eth0", Address: netip.MustParseAddr("192.0.2.1"), Port: 4000}),
		V6: opt.Some(firewall.Listening{Uplink: "eth0", Address: netip.MustParseAddr("2001:db8::1"), Port: 4000}),
	}
	if state.Firewall.Listen != want {
		t.Errorf("got %+v, want %+v", state.Firewall.Listen, want)
	}
	if state, _ := network.Preflight(in); state.Firewall.Listen != want {
		t.Errorf("before the lease: got %+v, want %+v", state.Firewall.Listen, want)
	}
}
