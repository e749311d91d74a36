package etcd

import (
	"slices"
	"strings"
)

// awayRemedy returns the remedy for an etcd that gives no answer, by the cause in the words of
// the TLS and gRPC libraries, which have no errors to compare with.
func awayRemedy(cause string, endpoints []string) string {
	has := func(texts ...string) bool {
		return slices.ContainsFunc(texts, func(t string) bool { return strings.Contains(cause, t) })
	}
	secure := slices.ContainsFunc(endpoints, func(e string) bool { return strings.HasPrefix(e, "https://") })
	switch {
	case has("certificate is valid for", "IP SANs", "certificate is not valid for any names"):
		return "its certificate has another name: give that name with --etcd-server-name, or use it in --etcd-endpoints"
	case has("unknown authority", "certificate is not trusted"):
		return "give the authority that signed its certificate with --etcd-cafile"
	case has("certificate has expired or is not yet valid"):
		return "renew its certificate, and look at the clocks of both machines"
	case has("certificate required", "bad certificate"):
		return "etcd asks for a client certificate: give it with --etcd-certfile and --etcd-keyfile"
	case has("does not look like a TLS handshake"), secure && has("EOF"):
		return "it speaks no TLS on this port: write http:// in --etcd-endpoints, or give etcd a certificate"
	case has("no such host", "server misbehaving"):
		return "the name has no address: correct --etcd-endpoints, or mend the name service (/etc/resolv.conf)"
	}
	return "start it, or see --etcd-endpoints"
}
