//go:build k8s

package k8s

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// authority signs the certificates of the cluster's programs, and keeps them in files:
// NAME.crt, NAME.key, NAME.kubeconfig.
type authority struct {
	t    *testing.T
	dir  string
	key  *ecdsa.PrivateKey
	cert *x509.Certificate
}

// newAuthority makes ca.crt, and the key of the service accounts, sa.key.
func newAuthority(t *testing.T, dir string) *authority {
	t.Helper()
	a := &authority{t: t, dir: dir}
	a.key, a.cert = a.sign("ca", x509.Certificate{
		Subject: pkix.Name{CommonName: "ca"}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	})
	a.sign("sa", x509.Certificate{Subject: pkix.Name{CommonName: "service accounts"}})
	return a
}

// path returns where a file of the authority is.
func (a *authority) path(file string) string { return filepath.Join(a.dir, file) }

// leaf makes a key and a certificate for both sides of TLS: a Kubernetes user and groups
// when it calls, addresses when it is called.
func (a *authority) leaf(name, user string, groups []string, names ...string) {
	a.t.Helper()
	c := x509.Certificate{
		Subject:     pkix.Name{CommonName: user, Organization: groups},
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	for _, n := range names {
		if ip := net.ParseIP(n); ip != nil {
			c.IPAddresses = append(c.IPAddresses, ip)
		} else {
			c.DNSNames = append(c.DNSNames, n)
		}
	}
	a.sign(name, c)
}

// sign writes a new key and what it may be used for; without a key of its own yet, the
// authority signs itself.
func (a *authority) sign(name string, c x509.Certificate) (*ecdsa.PrivateKey, *x509.Certificate) {
	a.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	c.SerialNumber = big.NewInt(time.Now().UnixNano())
	c.NotBefore, c.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(24*time.Hour)
	parent, parentKey := a.cert, a.key
	if parent == nil {
		parent, parentKey = &c, key
	}
	der, err := x509.CreateCertificate(rand.Reader, &c, parent, &key.PublicKey, parentKey)
	if err != nil {
		a.t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		a.t.Fatal(err)
	}
	private, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		a.t.Fatal(err)
	}
	a.write(name+".crt", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	a.write(name+".key", pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: private}))
	return key, cert
}

// kubeconfig writes how name reaches the API server, and returns the file's path.
func (a *authority) kubeconfig(name, server string) string {
	a.t.Helper()
	type m = map[string]any
	text, err := json.Marshal(m{
		"apiVersion": "v1", "kind": "Config", "current-context": "it",
		"clusters": []m{{"name": "it", "cluster": m{"server": server, "certificate-authority": a.path("ca.crt")}}},
		"users":    []m{{"name": "it", "user": m{"client-certificate": a.path(name + ".crt"), "client-key": a.path(name + ".key")}}},
		"contexts": []m{{"name": "it", "context": m{"cluster": "it", "user": "it"}}},
	})
	if err != nil {
		a.t.Fatal(err)
	}
	a.write(name+".kubeconfig", text)
	return a.path(name + ".kubeconfig")
}

func (a *authority) write(file string, text []byte) {
	a.t.Helper()
	if err := os.WriteFile(a.path(file), text, 0o600); err != nil {
		a.t.Fatal(err)
	}
}
