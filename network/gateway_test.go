package network_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/loden-net/loden/config/diff"
	"github.com/loden-net/loden/network"
)

// The bridge plugin fixes the hardware address of the bridge only when it sets the gateway
// address itself.
func TestGatewayAddressIsLeftToTheAddThatMakesTheBridge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var again []time.Duration
		due := network.GatewayWatch(func(d time.Duration) { again = append(again, d) })
		v4, v6 := diff.Change{Object: "gateway address 10.244.1.1/24 to cni0"}, diff.Change{Object: "gateway address fd44::1/64 to cni0"}
		expect := func(what string, missing []diff.Change, want int) {
			t.Helper()
			if got := due(missing); len(got) != want {
				t.Errorf("%s: %d changes, want %d", what, len(got), want)
			}
		}
		expect("the plugin has made the bridge", []diff.Change{v4, v6}, 0)
		expect("the plugin has set an address", []diff.Change{v6}, 0)
		expect("the plugin has set both", nil, 0)
		if len(again) != 2 || again[0] != again[1] {
			t.Errorf("asked for passes %v, want one for each address", again)
		}
		time.Sleep(time.Hour)
		expect("an address was lost", []diff.Change{v6}, 0)
		time.Sleep(again[0])
		expect("it stays lost", []diff.Change{v6}, 1)
		expect("the change failed", []diff.Change{v6}, 1)
		expect("it is back", nil, 0)
		expect("it was lost once more", []diff.Change{v6}, 0)
	})
}
