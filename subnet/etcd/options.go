package etcd

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc"
	grpcbackoff "google.golang.org/grpc/backoff"

	"github.com/loden-net/loden/config"
)

// Options say where etcd is and how to speak to it. Zero durations take the defaults named
// beside them.
type Options struct {
	Endpoints  []string // one or more; http:// or https://
	Prefix     string   // of all keys; a slash at its end is ignored
	CertFile   string   // client certificate; needs KeyFile
	KeyFile    string
	CAFile     string // certificate authority of etcd's certificate; alone it is enough for TLS
	ServerName string // name in etcd's certificate; "" is the host of the endpoint
	Username   string
	Password   config.Secret // a type that does not print

	TTL         time.Duration // of this node's lease, whole seconds; 24 h
	DialTimeout time.Duration // 5 s
	RPCTimeout  time.Duration // of a request, from sending to answer; 5 s
	Probe       time.Duration // how often to ask whether etcd is still the same and our lease still ours; 30 s
	Relist      time.Duration // how often to list all leases again without a reason; 30 min

	// HostAddresses returns the addresses of the host's interfaces; nil asks the kernel, at each
	// request and five times a second while it is under way. A program with thousands of registries
	// asks for all of them at once.
	HostAddresses func() (map[netip.Addr]bool, error)
}

// filled returns o with its defaults.
func (o Options) filled() Options {
	standard := func(d *time.Duration, otherwise time.Duration) {
		if *d <= 0 {
			*d = otherwise
		}
	}
	standard(&o.TTL, 24*time.Hour)
	standard(&o.DialTimeout, 5*time.Second)
	standard(&o.RPCTimeout, 5*time.Second)
	standard(&o.Probe, 30*time.Second)
	standard(&o.Relist, 30*time.Minute)
	o.Prefix = strings.TrimRight(o.Prefix, "/")
	return o
}

// clientConfig returns the configuration of etcd's client. It reads the TLS files.
func (o Options) clientConfig() (clientv3.Config, error) {
	conf := clientv3.Config{
		Endpoints:            o.Endpoints,
		DialTimeout:          o.DialTimeout,
		DialKeepAliveTime:    10 * time.Second, // etcd refuses below 5 s
		DialKeepAliveTimeout: 5 * time.Second,
		Username:             o.Username,
		Password:             string(o.Password),
		MaxCallRecvMsgSize:   maxMessage,
		// gRPC's own back-off grows to two minutes; a node should be back soon after etcd.
		DialOptions: []grpc.DialOption{grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           grpcbackoff.Config{BaseDelay: 200 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: 5 * time.Second},
			MinConnectTimeout: o.DialTimeout,
		})},
	}
	if err := silence(&conf.LogConfig); err != nil {
		return conf, err
	}
	var err error
	conf.TLS, err = o.tls()
	return conf, err
}

// verifyName makes the configuration verify the server's certificate for name. tls.Config's own
// ServerName is not enough: etcd's client gives gRPC a name for each address, its host, and gRPC
// prefers that. So the standard verification is switched off and done here, on each connection.
func verifyName(conf *tls.Config, name string) {
	conf.InsecureSkipVerify = true
	conf.VerifyConnection = func(state tls.ConnectionState) error {
		chain := state.PeerCertificates // never empty on the client's side
		intermediates := x509.NewCertPool()
		for _, cert := range chain[1:] {
			intermediates.AddCert(cert)
		}
		_, err := chain[0].Verify(x509.VerifyOptions{DNSName: name, Roots: conf.RootCAs, Intermediates: intermediates})
		return err
	}
}

// silence switches off the log of etcd's client: every failure comes back as an error. The
// type parameter stands for zap's Config, which alone would make zap a direct dependency.
func silence[Config any](c **Config) error {
	*c = new(Config)
	if err := json.Unmarshal([]byte(`{"level":"fatal","encoding":"json"}`), *c); err != nil {
		return fmt.Errorf("open etcd: configure the client's log: %w", err)
	}
	return nil
}

// tls returns the TLS configuration, nil when no file is given. The client's certificate
// is read again for every connection, so that a renewed file is used without a restart.
func (o Options) tls() (*tls.Config, error) {
	if o.CertFile == "" && o.KeyFile == "" && o.CAFile == "" {
		return nil, nil
	}
	if (o.CertFile == "") != (o.KeyFile == "") {
		return nil, errors.New("open etcd: a client certificate needs both --etcd-certfile and --etcd-keyfile")
	}
	conf := &tls.Config{MinVersion: tls.VersionTLS12}
	if o.CAFile != "" {
		pem, err := os.ReadFile(o.CAFile)
		if err != nil {
			return nil, fmt.Errorf("open etcd: read TLS file: %w", err)
		}
		conf.RootCAs = x509.NewCertPool()
		if !conf.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("open etcd: read TLS file %s: it holds no certificate in PEM form", o.CAFile)
		}
	}
	if o.ServerName != "" {
		verifyName(conf, o.ServerName)
	}
	if o.CertFile == "" {
		return conf, nil
	}
	load := func() (*tls.Certificate, error) {
		c, err := tls.LoadX509KeyPair(o.CertFile, o.KeyFile)
		if err != nil {
			return nil, fmt.Errorf("open etcd: read TLS files %s and %s: %w", o.CertFile, o.KeyFile, err)
		}
		return &c, nil
	}
	if _, err := load(); err != nil {
		return nil, err
	}
	conf.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return load() }
	return conf, nil
}
