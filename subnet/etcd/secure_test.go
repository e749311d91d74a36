package etcd_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rs/zerolog"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/loden-net/loden/config"
	"github.com/loden-net/loden/subnet/etcd"
)

// certificates writes a CA, a server's and a client's certificate, and another CA that
// signed no certificate, into a directory.
func certificates(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	caKey, ca := certificate(t, dir, "ca", nil, nil)
	certificate(t, dir, "server", caKey, ca)
	certificate(t, dir, "client", caKey, ca)
	certificate(t, dir, "stranger", nil, nil)
	return dir
}

func certificate(t *testing.T, dir, name string, parentKey *ecdsa.PrivateKey, parent *x509.Certificate) (*ecdsa.PrivateKey, *x509.Certificate) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	serial, err := rand.Int(rand.Reader, big.NewInt(1<<60))
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, DNSNames: []string{"store"}, IsCA: parent == nil, BasicConstraintsValid: true,
		KeyUsage:    x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	if parent == nil {
		parent, parentKey = template, key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, parentKey)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	for file, block := range map[string]*pem.Block{
		name + ".crt": {Type: "CERTIFICATE", Bytes: der}, name + ".key": {Type: "EC PRIVATE KEY", Bytes: private},
	} {
		if err := os.WriteFile(filepath.Join(dir, file), pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	made, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return key, made
}

// withTLS starts an etcd that speaks TLS.
func withTLS(t *testing.T, certs string) *server {
	t.Helper()
	s, err := newServer("tls", t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	s.certs, s.Client = certs, strings.Replace(s.Client, "http://", "https://", 1)
	s.start(t)
	return s
}

func TestTLS(t *testing.T) {
	certs := certificates(t)
	file := func(name string) string { return filepath.Join(certs, name) }
	oneWay := withTLS(t, certs)
	strict := certificates(t)
	if err := os.WriteFile(filepath.Join(strict, "require"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	mutual := withTLS(t, strict)
	n := network(t, dualDoc)
	works := func(o etcd.Options) func(*testing.T) {
		return func(t *testing.T) {
			r := open(t, func(into *etcd.Options) { o.Prefix, o.RPCTimeout = into.Prefix, 20*time.Second; *into = o })
			eventually(t, "a lease", func() bool {
				_, err := r.Acquire(t.Context(), etcd.Want{Network: n, Lease: want("a", 1)})
				return err == nil
			})
		}
	}
	fails := func(o etcd.Options, says string) func(*testing.T) {
		return func(t *testing.T) {
			r := open(t, func(into *etcd.Options) { o.Prefix, o.RPCTimeout = into.Prefix, time.Second; *into = o })
			_, err := r.Snapshot(t.Context())
			if !errors.Is(err, etcd.ErrUnavailable) || strings.Contains(err.Error(), "\n") || !strings.Contains(err.Error(), says) {
				t.Errorf("got %v, want one line about %q", err, says)
			}
		}
	}
	t.Run("with the CA alone", works(etcd.Options{Endpoints: []string{oneWay.Client}, CAFile: file("ca.crt")}))
	t.Run("with a client certificate", works(etcd.Options{
		Endpoints: []string{mutual.Client}, CAFile: filepath.Join(strict, "ca.crt"),
		CertFile: filepath.Join(strict, "client.crt"), KeyFile: filepath.Join(strict, "client.key"),
	}))
	elsewhere := strings.Replace(oneWay.Client, "127.0.0.1", "localhost", 1)
	t.Run("with the name in the certificate", works(etcd.Options{Endpoints: []string{elsewhere}, CAFile: file("ca.crt"), ServerName: "store"}))
	t.Run("refuses another name than the given", fails(etcd.Options{Endpoints: []string{oneWay.Client}, CAFile: file("ca.crt"), ServerName: "other"}, "not other"))
	t.Run("refuses another CA for the given name", fails(etcd.Options{Endpoints: []string{oneWay.Client}, CAFile: file("stranger.crt"), ServerName: "store"}, "x509: certificate signed by unknown authority"))
	t.Run("refuses a certificate for another name", fails(etcd.Options{Endpoints: []string{elsewhere}, CAFile: file("ca.crt")}, "not localhost"))
	t.Run("refuses a server of another CA", fails(etcd.Options{Endpoints: []string{oneWay.Client}, CAFile: file("stranger.crt")}, "x509: certificate signed by unknown authority"))
	t.Run("says that a client certificate is missing", fails(etcd.Options{Endpoints: []string{mutual.Client}, CAFile: filepath.Join(strict, "ca.crt")}, "certificate required"))
}

func TestOpenRefusesFilesItCannotUse(t *testing.T) {
	certs := certificates(t)
	good := filepath.Join(certs, "client.crt")
	for name, o := range map[string]etcd.Options{
		"no endpoint":              {},
		"certificate without key":  {Endpoints: []string{"https://127.0.0.1:1"}, CertFile: good},
		"key without certificate":  {Endpoints: []string{"https://127.0.0.1:1"}, KeyFile: good},
		"no such file":             {Endpoints: []string{"https://127.0.0.1:1"}, CAFile: filepath.Join(certs, "missing")},
		"a key as the CA":          {Endpoints: []string{"https://127.0.0.1:1"}, CAFile: filepath.Join(certs, "client.key")},
		"a certificate as the key": {Endpoints: []string{"https://127.0.0.1:1"}, CertFile: good, KeyFile: good},
	} {
		if _, err := etcd.Open(t.Context(), o, zerolog.Nop()); err == nil || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

// rights makes a user with a role that may read and write a single prefix, as docs/etcd.md says
// it, and switches authentication on.
func rights(t *testing.T, c *clientv3.Client, prefix string) {
	t.Helper()
	ctx := within(t)
	steps := []func() error{
		func() error { _, err := c.UserAdd(ctx, "root", "rootpw"); return err },
		func() error { _, err := c.UserGrantRole(ctx, "root", "root"); return err },
		func() error { _, err := c.RoleAdd(ctx, "loden"); return err },
		func() error {
			_, err := c.RoleGrantPermission(ctx, "loden", prefix+"/", clientv3.GetPrefixRangeEnd(prefix+"/"), clientv3.PermissionType(clientv3.PermReadWrite))
			return err
		},
		func() error { _, err := c.UserAdd(ctx, "loden", "lodenpw"); return err },
		func() error { _, err := c.UserGrantRole(ctx, "loden", "loden"); return err },
		func() error { _, err := c.UserAdd(ctx, "nobody", "nobodypw"); return err },
		func() error { _, err := c.AuthEnable(ctx); return err },
	}
	for _, step := range steps {
		if err := step(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestUserWithARoleOnThePrefixCanDoEverything(t *testing.T) {
	t.Parallel()
	server := own(t)
	c := plain(t, server.Client)
	ready(t, c)
	put(t, c, "config", dualDoc)
	rights(t, c, prefix(t))
	as := func(user, password string) func(*etcd.Options) {
		return func(o *etcd.Options) { o.Username, o.Password = user, config.Secret(password) }
	}
	r := open(t, as("loden", "lodenpw"), server.Client)
	n, err := r.Network(within(t))
	if err != nil {
		t.Fatal(err)
	}
	x := runNode(t, r, n, want("a", 1))
	eventually(t, "a lease", func() bool { return x.held() != "" && x.sees() == "a" })
	// Tokens live for a second here: watch, keep and plain requests must each get new tokens.
	start := time.Now()
	eventually(t, "three tokens' time", func() bool { return time.Since(start) > 3*time.Second })
	claim := acquire(t, open(t, as("loden", "lodenpw"), server.Client), n, want("b", 2), noPrefix)
	eventually(t, "a newcomer", func() bool { return x.sees() == "a b" })
	if err := claim.Release(within(t)); err != nil {
		t.Fatal(err)
	}
	eventually(t, "its leaving", func() bool { return x.sees() == "a" })
	if _, err := r.Reserve(within(t), n, "c", noPrefix); err != nil {
		t.Error(err)
	}
	if _, _, err := r.Leases(within(t)); err != nil {
		t.Error(err)
	}
	if _, err := r.PutNetwork(within(t), []byte(dualDoc), etcd.RefuseMoves); err != nil {
		t.Error(err)
	}
	if x.losses() != 0 {
		t.Errorf("the lease was lost %d times", x.losses())
	}
	for name, tc := range map[string]struct{ user, password, says string }{
		"no user":        {"", "", "--etcd-username"},
		"wrong password": {"loden", "wrong-secret", "LODEN_ETCD_PASSWORD"},
		"no role":        {"nobody", "nobodypw", "grant its role readwrite on the prefix " + prefix(t)},
	} {
		_, err := open(t, as(tc.user, tc.password), server.Client).Snapshot(within(t))
		if err == nil || !strings.Contains(err.Error(), tc.says) || strings.Contains(err.Error(), "wrong-secret") {
			t.Errorf("%s: got %v, want a word about %q", name, err, tc.says)
		}
	}
}

func TestOptionsDoNotPrintThePassword(t *testing.T) {
	o := etcd.Options{Username: "u", Password: "hunter2"}
	for _, text := range []string{fmt.Sprint(o), fmt.Sprintf("%v %+v %#v", o, o, o), fmt.Sprint(&o)} {
		if strings.Contains(text, "hunter2") {
			t.Errorf("printed: %s", text)
		}
	}
}

func TestUnavailableSaysWhereAndWhy(t *testing.T) {
	gone, err := newServer("gone", t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	r := open(t, func(o *etcd.Options) { o.RPCTimeout = 300 * time.Millisecond }, gone.Client)
	_, err = r.Snapshot(t.Context())
	want := "list leases: etcd is not available at " + gone.Client + ": start it, or see --etcd-endpoints (connection refused)"
	if !errors.Is(err, etcd.ErrUnavailable) || err.Error() != want {
		t.Errorf("got %v\nwant %s", err, want)
	}
	if s := r.Status(); s.Connected || s.LastError != want {
		t.Errorf("status %+v", s)
	}
}
