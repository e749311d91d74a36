package node

import (
	"strings"
	"testing"
	"time"

	"github.com/rs/zerolog"
)

func TestDebugLogTellsOfHandshakes(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	report := func(sent int64, handshake time.Time, refused uint64) Report {
		return Report{Engine: EngineReport{Drops: map[string]uint64{"handshake-rejected": refused}},
			Peers: []PeerReport{{Node: "n2", PublicKey: "K", Endpoint: "192.0.2.2:51820", Sent: sent, Handshake: handshake}}}
	}
	for name, c := range map[string]struct {
		before, now Report
		want        string
	}{
		"made":               {report(0, time.Time{}, 0), report(148, now, 0), `"node":"n2","key":"K","endpoint":"192.0.2.2:51820","message":"handshake made"`},
		"unanswered":         {report(0, time.Time{}, 0), report(148, time.Time{}, 0), `"message":"handshake initiation sent, no answer"`},
		"an old handshake":   {report(0, now.Add(-time.Hour), 0), report(148, now.Add(-time.Hour), 0), "no answer"},
		"refused":            {report(0, now, 1), report(0, now, 4), "3 handshake messages refused"},
		"data":               {report(0, now, 0), report(5000, now, 0), ""},
		"idle":               {report(0, time.Time{}, 0), report(0, time.Time{}, 0), ""},
		"an engine replaced": {report(900, time.Time{}, 9), report(148, time.Time{}, 0), ""},
	} {
		var b strings.Builder
		for _, e := range handshakeEvents(c.before, c.now, now) {
			e.log(zerolog.New(&b))
		}
		if !strings.Contains(b.String(), c.want) || c.want == "" && b.Len() > 0 {
			t.Errorf("%s: %s", name, b.String())
		}
	}
}
