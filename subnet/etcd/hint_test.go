package etcd

import (
	"strings"
	"testing"
)

func TestRemedyForAnEtcdThatIsAwayFitsTheCause(t *testing.T) {
	for cause, want := range map[string]string{
		"tls: failed to verify certificate: x509: certificate is valid for etcd.example, not etcd":                                  "--etcd-server-name",
		"tls: failed to verify certificate: x509: cannot validate certificate for 192.0.2.1 because it doesn't contain any IP SANs": "--etcd-server-name",
		"tls: failed to verify certificate: x509: certificate signed by unknown authority":                                          "--etcd-cafile",
		"tls: failed to verify certificate: x509: certificate has expired or is not yet valid: current time 2026 is after 2020":     "renew its certificate",
		"remote error: tls: certificate required":                                                                                   "--etcd-certfile",
		"tls: first record does not look like a TLS handshake":                                                                      "http://",
		"EOF":                               "http://",
		"lookup etcd.invalid: no such host": "the name has no address",
		"dial tcp 192.0.2.1:2379: connect: connection refused": "start it, or see --etcd-endpoints",
	} {
		if got := awayRemedy(cause, []string{"https://192.0.2.1:2379"}); !strings.Contains(got, want) {
			t.Errorf("%s: %s", cause, got)
		}
	}
	if got := awayRemedy("EOF", []string{"http://192.0.2.1:2379"}); got != "start it, or see --etcd-endpoints" {
		t.Errorf("EOF of a plain connection: %s", got)
	}
}
