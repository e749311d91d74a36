package backend_test

import (
	"testing"

	"github.com/loden-net/loden/backend"
	"github.com/loden-net/loden/config/opt"
)

func TestTunnelMTUIsTheUplinkLessTheLargestOverheadInUse(t *testing.T) {
	v4, v6, both := []opt.Family{opt.V4}, []opt.Family{opt.V6}, []opt.Family{opt.V4, opt.V6}
	for name, c := range map[string]struct {
		uplink   int
		underlay []opt.Family
		want     int
	}{
		"Ethernet, IPv4":       {1500, v4, 1440},
		"Ethernet, IPv6":       {1500, v6, 1420},
		"Ethernet, both":       {1500, both, 1420},
		"Ethernet, unknown":    {1500, nil, 1420},
		"jumbo frames, IPv6":   {9000, v6, 8920},
		"a cloud's 1450, IPv4": {1450, v4, 1390},
		"PPPoE, both":          {1492, both, 1412},
	} {
		if got := backend.TunnelMTU(c.uplink, c.underlay); got != c.want {
			t.Errorf("%s: got %d, want %d", name, got, c.want)
		}
	}
}
