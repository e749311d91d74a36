package network_test

import (
	"net/netip"
	"testing"

	"github.com/loden-net/loden/config/opt"
	"github.com/loden-net/loden/network"
	"github.com/loden-net/loden/subnet"
)

// R26, flannel issue 2200: the node's own port was used for the endpoint of a peer.
func TestR26PeerIsReachedAtItsOwnPort(t *testing.T) {
	const doc = `{"Network":"10.244.0.0/16","EnableIPv6":true,"IPv6Network":"fd44::/48","Backend":{"Type":"wireguard","ListenPort":51820}}`
	in := inputs(t, doc, 1)
	in.Self.Port = 41820
	for i, port := range map[int]uint16{2: 1024, 3: 51821} {
		peer := node(i)
		peer.Endpoints.V4 = opt.Some(netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 0, 2, byte(i)}), port))
		peer.Endpoints.V6 = opt.None[netip.AddrPort]()
		in.Leases = in.Leases.With(subnet.Lease(peer))
	}
	state, problems := network.Plan(in)
	device, ok := state.Device.Get()
	if !ok || len(problems) > 0 || device.Peers.Len() != 2 {
		t.Fatalf("planned %v with problems %v, want a device with two peers", state, problems)
	}
	if device.Port != 41820 {
		t.Errorf("the device listens on %d, want 41820", device.Port)
	}
	for p := range device.Peers.All() {
		want := map[netip.Addr]uint16{netip.MustParseAddr("192.0.2.2"): 1024, netip.MustParseAddr("192.0.2.3"): 51821}[p.Endpoint.Addr()]
		if p.Endpoint.Port() != want {
			t.Errorf("endpoint is %v, want port %d", p.Endpoint, want)
		}
	}
}
