package node

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strconv"
	"strings"

	"github.com/loden-net/loden/network"
	"github.com/loden-net/loden/network/node/page"
)

// browser is the part of the api for people: the page, and the answers from which it is made.
// Make it with newBrowser.
type browser struct {
	recorder *recorder
	status   func() (network.Status, bool) // of the reconciler
	live     *page.Live
	names    hostNames
}

func newBrowser(r *recorder, status func() (network.Status, bool), names hostNames) browser {
	live := page.NewLive(func(ctx context.Context) any { return r.report(ctx) }, &r.events)
	return browser{recorder: r, status: status, live: live, names: names}
}

// register adds the page and its answers.
func (b browser) register(mux *http.ServeMux) {
	page.Register(mux)
	mux.Handle("GET /live", b.live)
	mux.HandleFunc("GET /events", b.recorder.serveEvents)
	mux.HandleFunc("GET /history", b.recorder.serveHistory)
	mux.HandleFunc("GET /plan", servePlan(b.status))
}

// hostNames are the names by which browsers and monitors may address this node, in lower case.
type hostNames map[string]bool

// newHostNames returns the names that cannot be names of an attacker.
func newHostNames(names ...string) hostNames {
	out := hostNames{"": true, "localhost": true} // a request without a name is not a browser's
	for _, n := range names {
		out[strings.ToLower(n)] = true
	}
	return out
}

// hostNames returns the names of this node: the node's, the host's, and the name in
// --listen-address.
func (s Settings) hostNames() hostNames {
	host, _ := os.Hostname() // an unknown name is no name
	listen, _, _ := net.SplitHostPort(s.ListenAddress)
	return newHostNames(s.Name, host, listen)
}

// allowed reports whether a Host header names this node: by an address, or by a name of its
// own. A web page of an attacker can make its own name resolve to 127.0.0.1 and would then
// read this node's answers as its own (DNS rebinding); its requests still bear its name.
func (h hostNames) allowed(host string) bool {
	name := host
	if n, port, err := net.SplitHostPort(host); err == nil {
		if _, err := strconv.ParseUint(port, 10, 16); err != nil {
			return false
		}
		name = n
	}
	name = strings.ToLower(strings.TrimSuffix(strings.Trim(name, "[]"), "."))
	if h[name] || strings.HasSuffix(name, ".localhost") {
		return true
	}
	_, err := netip.ParseAddr(name)
	return err == nil
}

// protect refuses requests that a web page of another origin makes through the browser of an
// operator: with a foreign name in the Host header, or marked as cross-site by the browser
// (https://www.w3.org/TR/fetch-metadata/). A link to the page stays possible. Monitors may
// use every name, unless the connection came over loopback.
func (h hostNames) protect(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case !h.allowed(r.Host) && !(forMonitors(r.URL.Path) && !overLoopback(r)):
			http.Error(w, fmt.Sprintf("this node does not answer to the name %.100q: ask by an IP address, by localhost, or by the name in --listen-address", r.Host), http.StatusMisdirectedRequest)
		case r.Header.Get("Sec-Fetch-Site") == "cross-site" && r.Header.Get("Sec-Fetch-Mode") != "navigate":
			http.Error(w, "a web page of another origin made this request: open this address itself", http.StatusForbidden)
		default:
			next.ServeHTTP(w, r)
		}
	})
}

// forMonitors reports whether programs of the cluster ask for a path, by the name of a service perhaps.
func forMonitors(path string) bool {
	return path == "/metrics" || path == "/healthz" || path == "/readyz"
}

// overLoopback reports whether the request came to a loopback address, or to an unknown address.
func overLoopback(r *http.Request) bool {
	local, ok := r.Context().Value(http.LocalAddrContextKey).(*net.TCPAddr)
	return !ok || local.IP.IsLoopback()
}
