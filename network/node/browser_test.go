package node

import (
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

// fetch sends a request over a connection to a local address.
func fetch(h http.Handler, path, host string, local net.Addr, header ...string) int {
	r := httptest.NewRequest(http.MethodGet, path, nil)
	r = r.WithContext(context.WithValue(r.Context(), http.LocalAddrContextKey, local))
	r.Host = host
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w.Code
}

var (
	loopback = &net.TCPAddr{IP: net.IPv6loopback, Port: 8081}
	lan      = &net.TCPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 8081}
)

// DNS rebinding: a page of evil.example reads this node's answers when evil.example resolves
// to 127.0.0.1. Its requests bear the name evil.example.
func TestAForeignNameInTheHostHeaderIsRefused(t *testing.T) {
	h := newHostNames("Alpha", "alpha.example.net").protect(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	for host, want := range map[string]int{
		"127.0.0.1:8081": 200, "[::1]:8081": 200, "[::1]": 200, "192.0.2.1:80": 200, "[fe80::1%eth0]:8081": 200,
		"localhost:8081": 200, "LOCALHOST": 200, "loden.localhost:1": 200, "": 200,
		"alpha:8081": 200, "alpha.example.net.:8081": 200,
		"evil.example:8081": 421, "evil.example": 421, "localhost.evil.example": 421, "127.0.0.1.evil.example": 421, "alpha.evil.example:8081": 421,
	} {
		if got := fetch(h, "/status", host, lan); got != want {
			t.Errorf("Host %q: %d, want %d", host, got, want)
		}
	}
}

func TestMonitorsMayUseTheNameOfAServiceUnlessOverLoopback(t *testing.T) {
	h := newHostNames().protect(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	for _, path := range []string{"/metrics", "/healthz", "/readyz"} {
		if got := fetch(h, path, "loden.loden-system.svc:8081", lan); got != 200 {
			t.Errorf("%s over the LAN: %d", path, got)
		}
		if got := fetch(h, path, "evil.example:8081", loopback); got != 421 {
			t.Errorf("%s over loopback: %d", path, got)
		}
	}
}

func TestARequestThatAnotherSiteMakesIsRefusedAndALinkIsNot(t *testing.T) {
	h := newHostNames().protect(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	for _, c := range []struct {
		site, mode string
		want       int
	}{{"cross-site", "no-cors", 403}, {"cross-site", "cors", 403}, {"cross-site", "navigate", 200}, {"same-origin", "cors", 200}, {"none", "navigate", 200}} {
		if got := fetch(h, "/live", "127.0.0.1:8081", loopback, "Sec-Fetch-Site", c.site, "Sec-Fetch-Mode", c.mode); got != c.want {
			t.Errorf("%s, %s: %d, want %d", c.site, c.mode, got, c.want)
		}
	}
}

// FuzzHostNames looks for a name below an attacker's domain that passes. A zone is no name: no
// URL of a browser has it.
func FuzzHostNames(f *testing.F) {
	for _, seed := range []string{"a:1", "[::1]:2", "localhost.:", "x.localhost", "[a]", "127.1:80", "::1", "alpha:x"} {
		f.Add(seed)
	}
	names := newHostNames("alpha")
	f.Fuzz(func(t *testing.T, host string) {
		for _, attacker := range []string{host + ".evil.example", host + ".evil.example:8081"} {
			if names.allowed(attacker) && !strings.Contains(host, "%") {
				t.Errorf("%q is allowed", attacker)
			}
		}
	})
}

func TestThePageAndItsAnswersAreServedOverTCP(t *testing.T) {
	addr := startAPI(t, t.TempDir(), func() Report { return sample(time.Now()) }, func() {})
	for path, want := range map[string]struct {
		code int
		part string
	}{
		"/": {200, "<!doctype html>"}, "/events": {200, `{"apiVersion":1,"events":[]}`}, "/plan": {200, `"parts":[]`},
		"/history?peer=b": {404, `no sample of peer "b"`},
	} {
		code, body := get(t, "http://"+addr+path)
		if code != want.code || !strings.Contains(body, want.part) {
			t.Errorf("%s: %d %.200s", path, code, body)
		}
	}
}
