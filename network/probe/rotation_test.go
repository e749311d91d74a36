package probe

import (
	"testing"
	"time"

	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"github.com/loden-net/loden/config/opt"
)

// A turn costs a look at many peers. With 10,000 peers that were all dead the turns followed each
// other every 20 ms, without a question asked.
func TestTurnsAreRareWhileNoPeerMayJoin(t *testing.T) {
	start := time.Date(2026, 11, 27, 0, 0, 0, 0, time.UTC)
	for name, way := range map[string]*path{
		"every place is taken":       newPath(10*time.Second, start),
		"no peer can be asked":       nil,
		"each was asked just before": newPath(time.Hour, start),
	} {
		t.Run(name, func(t *testing.T) {
			var r rotation
			peers := map[wgtypes.Key]*neighbour{}
			for i := range 4 * everyPeer {
				n := &neighbour{Peer: Peer{Key: wgtypes.Key{byte(i), byte(i >> 8)}}}
				if way != nil {
					n.paths = opt.Dual[*path]{}.With(opt.V4, way)
				}
				if name == "each was asked just before" {
					n.joined = start
				}
				peers[n.Key] = n
			}
			r.set(peers)
			turns := 0
			for now := start; now.Before(start.Add(time.Minute)) && turns < 10_000; turns++ {
				_, due := r.turn(now)
				now = latest(due, now.Add(minPause))
			}
			if most := int(time.Minute / coldPauseMin); turns > most {
				t.Errorf("%d turns in a minute, want at most %d", turns, most)
			}
		})
	}
}
