package node

import (
	"context"
	"fmt"
	"net/http/httptest"
	"strings"
	"testing"
)

func TestMetricsHaveSeriesOfPeersUpToALimitAndTotalsOfAll(t *testing.T) {
	rep := Report{Interface: "loden0"}
	for i := range 1000 {
		rep.Peers = append(rep.Peers, PeerReport{Node: fmt.Sprintf("n%03d", i), PublicKey: fmt.Sprint(i), Sent: 2, Received: 3,
			Paths: []PathReport{{Family: "ipv4", State: "up"}}})
	}
	w := httptest.NewRecorder()
	metricsHandler(func(context.Context) Report { return rep }, 200).ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	text := w.Body.String()
	for _, line := range []string{"loden_peers_without_series 800", "loden_peers_sent_bytes 2000", "loden_peers_received_bytes 3000", `loden_peers{state="idle"} 1000`} {
		if !strings.Contains(text, "\n"+line+"\n") {
			t.Errorf("no line %q", line)
		}
	}
	for _, name := range []string{"wireguard_sent_bytes_total{", "wireguard_latest_handshake_seconds{", "loden_peer_state{"} {
		if n := strings.Count(text, "\n"+name); n != 200 {
			t.Errorf("%d series %s, want 200", n, name)
		}
	}
}
