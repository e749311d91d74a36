package etcd

import (
	"net/http"
	"net/url"
	"strings"
	"testing"
)

func TestProxyThatCatchesEtcdIsNamedWithoutItsPassword(t *testing.T) {
	through := func(r *http.Request) (*url.URL, error) {
		if r.URL.Scheme != "https" || r.URL.Hostname() != "192.0.2.2" {
			return nil, nil
		}
		return url.Parse("http://user:secret@proxy.example:3128")
	}
	got := proxyHint([]string{"http://192.0.2.1:2379", "://", "http://192.0.2.2:2379"}, through)
	if want := "; HTTPS_PROXY sends requests to 192.0.2.2:2379 through http://proxy.example:3128: add 192.0.2.2 to NO_PROXY"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if got := proxyHint([]string{"http://192.0.2.1:2379"}, through); got != "" || strings.Contains(got, "secret") {
		t.Errorf("no proxy: got %q", got)
	}
}
