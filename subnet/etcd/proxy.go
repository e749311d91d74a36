package etcd

import (
	"fmt"
	"net/http"
	"net/url"
)

// proxyOf returns the proxy of a request, or nil, as http.ProxyFromEnvironment does. gRPC
// asks that function too.
type proxyOf func(*http.Request) (*url.URL, error)

// proxyHint names the proxy that the environment puts before an endpoint, with the remedy;
// "" when no endpoint has a proxy. Only the proxy's scheme and host are named: its URL may
// hold a password.
func proxyHint(endpoints []string, proxy proxyOf) string {
	for _, endpoint := range endpoints {
		u, err := url.Parse(endpoint)
		if err != nil {
			continue
		}
		// gRPC asks with the scheme https, whatever the endpoint's scheme is.
		p, err := proxy(&http.Request{URL: &url.URL{Scheme: "https", Host: u.Host}})
		if err != nil || p == nil {
			continue
		}
		return fmt.Sprintf("; HTTPS_PROXY sends requests to %s through %s://%s: add %s to NO_PROXY", u.Host, p.Scheme, p.Host, u.Hostname())
	}
	return ""
}
