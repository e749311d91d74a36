package page

import (
	"context"
	"encoding/json"
	"net/http"
	"time"

	"github.com/loden-net/loden/network/node/history"
	nodepage "github.com/loden-net/loden/network/node/page"
)

// Handler serves the page of the cluster's first node. end ends its streams.
func (c *Cluster) Handler() (handler http.Handler, end func()) {
	mux := http.NewServeMux()
	live := nodepage.NewLive(func(context.Context) any { return c.Report(0, time.Now()) }, &c.Events)
	nodepage.Register(mux)
	mux.Handle("GET /live", live)
	mux.HandleFunc("GET /matrix", func(w http.ResponseWriter, _ *http.Request) { answer(w, c.Matrix(time.Now())) })
	mux.HandleFunc("GET /history", func(w http.ResponseWriter, r *http.Request) {
		for i, name := range c.names {
			if series, ok := c.samples.Of(c.key(i)); ok && name == r.FormValue("peer") {
				answer(w, struct {
					Peer string `json:"peer"`
					history.Series
				}{name, series})
				return
			}
		}
		http.NotFound(w, r)
	})
	mux.HandleFunc("GET /plan", func(w http.ResponseWriter, _ *http.Request) {
		type part struct {
			Part  string   `json:"part"`
			Lines []string `json:"lines"`
		}
		answer(w, map[string]any{"at": time.Now(), "made": []int{}, "parts": []part{
			{"firewall", []string{"IPv4 from pods to the outside is masqueraded", "IPv4 packets of 10.244.0.0/16 in plaintext: guard enforce"}},
			{"sysctls", []string{"net.ipv4.ip_forward = 1"}},
			{"routes", []string{"10.244.0.0/16 through the tunnel", "10.244.0.0/16 unreachable"}},
		}})
	})
	return mux, live.End
}

func answer(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v) // an error says that the browser went away
}
