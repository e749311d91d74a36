package node

import (
	"encoding/json"
	"fmt"
	"net/http"

	"github.com/loden-net/loden/network/node/history"
)

// historyAnswer is the body of /history.
type historyAnswer struct {
	APIVersion int    `json:"apiVersion"` // 1
	Peer       string `json:"peer"`       // the name that was asked for
	history.Series
}

// serveHistory answers with the last hour of a peer, which ?peer= names by its node name or
// its public key.
func (r *recorder) serveHistory(w http.ResponseWriter, req *http.Request) {
	peer := req.FormValue("peer")
	series, ok := r.samples.Of(r.keyOf(peer))
	if !ok {
		http.Error(w, fmt.Sprintf("no sample of peer %.100q in the last hour: name a peer of this node, as in /history?peer=NAME", peer), http.StatusNotFound)
		return
	}
	writeJSON(w, historyAnswer{APIVersion: 1, Peer: peer, Series: series})
}

// keyOf returns the public key of the peer with a node name, or the name itself.
func (r *recorder) keyOf(name string) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	last, _ := r.last.Get()
	for _, p := range last.Peers {
		if p.Node == name {
			return p.PublicKey
		}
	}
	return name
}

// writeJSON answers with v as JSON.
func writeJSON(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v) // an error says that the client went away
}
