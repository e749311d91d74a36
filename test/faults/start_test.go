package faults_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/loden-net/loden/test/lab"
)

// TestFaultsBeforeTheStartAreNamedByDoctor examines a node without a daemon.
func TestFaultsBeforeTheStartAreNamedByDoctor(t *testing.T) {
	b := newBed(t, lab.Options{Nodes: 1, Engines: []string{"loden"}}, 0)
	doctor := func(flags ...string) []string { return append(append([]string{"doctor"}, b.a.Flags()...), flags...) }
	elsewhere := func(flags ...string) []string {
		return append(append([]string{"doctor"}, b.a.Flags()[2:]...), flags...)
	} // another etcd
	put := func(document string) { b.etcdctl(t, "put", "/coreos.com/network/config", document) }
	good := string(lab.Document(lab.Dual))
	t.Run("13 etcd has a certificate of another name", func(t *testing.T) {
		url, ca := tlsEtcd(t, b)
		named(t, evidence{b.a, elsewhere("--etcd-endpoints", url, "--etcd-cafile", ca), `certificate .*(valid for|IP SANs)`, `--etcd-server-name`})
	})
	t.Run("16 the overlay contains the LAN", func(t *testing.T) {
		put(`{"Network":"172.16.0.0/12","SubnetLen":24,"Backend":{"Type":"wireguard"}}`)
		defer put(good)
		named(t, evidence{b.a, doctor(), `lies in the overlay 172.16.0.0/12|route 172.20.0.0/16`, `choose another network|route is more specific`})
	})
	t.Run("34 the UDP port is taken", func(t *testing.T) {
		var taken net.PacketConn
		err := b.a.Do(func() (err error) {
			taken, err = new(net.ListenConfig).ListenPacket(t.Context(), "udp", "0.0.0.0:51820")
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		defer taken.Close()
		named(t, evidence{b.a, doctor(), `51820`, `(ss -ulnp|another port|--listen-port)`})
	})
	t.Run("34 the private key is garbled", func(t *testing.T) {
		sh(t, b.a, "echo no-key >/var/lib/loden/private.key")
		defer sh(t, b.a, "rm /var/lib/loden/private.key")
		named(t, evidence{b.a, doctor(), `private key: .*/var/lib/loden/private.key`, `(?i)restore|delete|move|remove`})
	})
	t.Run("34 there is no network document", func(t *testing.T) {
		b.etcdctl(t, "del", "/coreos.com/network/config")
		defer put(good)
		named(t, evidence{b.a, doctor(), `no network document`, `loden network put`})
	})
	t.Run("34 etcd's name has no address", func(t *testing.T) {
		named(t, evidence{b.a, elsewhere("--etcd-endpoints", "http://etcd.invalid:2379"), `the name etcd.invalid has no address`, `correct --etcd-endpoints`})
	})
}

// tlsEtcd starts an etcd on the store's host whose certificate has another name than its
// address, and returns its URL and the file of the authority.
func tlsEtcd(t *testing.T, b *bed) (url, ca string) {
	t.Helper()
	dir := t.TempDir()
	cert, key := selfSigned(t, dir)
	host := b.Store.Addr.String()
	url = "https://" + net.JoinHostPort(host, "2479")
	ctx, cancel := context.WithCancel(t.Context())
	cmd := b.Store.Command(ctx, b.Program("etcd"), "--data-dir", filepath.Join(dir, "data"), "--listen-client-urls", url, "--advertise-client-urls", url,
		"--listen-peer-urls", "http://127.0.0.1:2480", "--initial-advertise-peer-urls", "http://127.0.0.1:2480", "--initial-cluster", "default=http://127.0.0.1:2480",
		"--cert-file", cert, "--key-file", key, "--log-level", "error", "--unsafe-no-fsync")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cancel()
		_ = cmd.Wait() // it was killed
	})
	return url, cert
}

// selfSigned writes a certificate for the name etcd.example and its key.
func selfSigned(t *testing.T, dir string) (cert, key string) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "etcd"}, DNSNames: []string{"etcd.example"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	public, err := x509.CreateCertificate(rand.Reader, template, template, &private.PublicKey, private)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	cert, key = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	write := func(path, kind string, data []byte) error {
		return os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: data}), 0o600)
	}
	if err := errors.Join(write(cert, "CERTIFICATE", public), write(key, "PRIVATE KEY", secret)); err != nil {
		t.Fatal(err)
	}
	return cert, key
}
