package node

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
)

// apiVersion is the version of every JSON object that Loden prints or serves. A change that
// breaks readers raises it; new fields do not.
const apiVersion = 1

// serveWhy answers POST /why?from=A&to=B.
func (a api) serveWhy(w http.ResponseWriter, r *http.Request) {
	x, err := a.why(r.Context(), r.FormValue("from"), r.FormValue("to"))
	if err != nil {
		http.Error(w, err.Error(), http.StatusNotFound)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(x) // an error says that the client went away
}

// serveViews answers POST /views.
func (a api) serveViews(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(a.views(r.Context()))
}

// Why asks the daemon of this node why packets do not pass between two pods or nodes. Errors:
// ErrNoDaemon, ErrUnknownEnd.
func Why(ctx context.Context, runDir, from, to string) (Explanation, error) {
	var x Explanation
	err := askJSON(ctx, runDir, "/why?"+url.Values{"from": {from}, "to": {to}}.Encode(), &x)
	return x, err
}

// ErrUnknownEnd says that an argument of Why names no node and no pod.
var ErrUnknownEnd = errors.New("unknown end of the way")

// Views asks the daemon of this node for its peers' views. Errors: ErrNoDaemon.
func Views(ctx context.Context, runDir string) ([]PeerView, error) {
	var v []PeerView
	err := askJSON(ctx, runDir, "/views", &v)
	return v, err
}

// askJSON posts to the daemon of this node and reads the answer.
func askJSON(ctx context.Context, runDir, path string, into any) error {
	resp, err := request(ctx, runDir, http.MethodPost, path)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(io.LimitReader(resp.Body, 4<<10)) // a text for people, whole or not
		if resp.StatusCode == http.StatusNotFound && len(text) > 0 && !strings.HasPrefix(string(text), "404") {
			return fmt.Errorf("%w: %s", ErrUnknownEnd, strings.TrimSpace(string(text)))
		}
		return fmt.Errorf("%w a newer question: %s: restart `loden run` with this version", ErrNoDaemon, resp.Status)
	}
	if err := json.NewDecoder(resp.Body).Decode(into); err != nil {
		return fmt.Errorf("read the daemon's answer: %w", err)
	}
	return nil
}
