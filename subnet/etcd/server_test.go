package etcd_test

import (
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"go.etcd.io/etcd/server/v3/embed"
	"go.uber.org/goleak"
	"go.uber.org/zap"
)

// shared is the address of an etcd that all tests use, each under a prefix of its own.
// Tests that hurt etcd start their own.
var shared string

// childEnv makes this program an etcd server: "name|data dir|client URL|peer URL|cluster|TLS dir".
const childEnv = "LODEN_TEST_ETCD"

func TestMain(m *testing.M) {
	if spec := os.Getenv(childEnv); spec != "" {
		os.Exit(serveChild(spec))
	}
	os.Exit(runWithServer(m))
}

// runWithServer runs the tests beside an etcd in a process of its own, so that what leaks
// here is ours.
func runWithServer(m *testing.M) int {
	dir, err := os.MkdirTemp("", "loden-etcd-")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)
	server, err := newServer("shared", dir)
	if err != nil {
		panic(err)
	}
	if err := server.run(); err != nil {
		panic(err)
	}
	defer server.kill()
	shared = server.Client
	if err := os.Setenv("LODEN_TEST_SHARED", shared); err != nil { // for the tests inside the package
		panic(err)
	}
	status := m.Run()
	if err := goleak.Find(); err != nil && status == 0 {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return status
}

// serverConfig is a one-member etcd on a free port of loopback.
func serverConfig(dir string) *embed.Config {
	any0, _ := url.Parse("http://127.0.0.1:0")
	conf := embed.NewConfig()
	conf.Dir = dir
	conf.ListenClientUrls, conf.AdvertiseClientUrls = []url.URL{*any0}, []url.URL{*any0}
	conf.ListenPeerUrls, conf.AdvertisePeerUrls = []url.URL{*any0}, []url.URL{*any0}
	conf.InitialCluster = conf.Name + "=" + any0.String()
	conf.UnsafeNoFsync = true
	conf.ZapLoggerBuilder = embed.NewZapLoggerBuilder(zap.NewNop())
	conf.MaxTxnOps = 128
	return conf
}

// serveChild runs an etcd until its standard input ends, which it does when the test
// that started it is gone, in whatever way.
func serveChild(spec string) int {
	part := strings.Split(spec, "|")
	one := func(s string) []url.URL {
		u, err := url.Parse(s)
		if err != nil {
			panic(err)
		}
		return []url.URL{*u}
	}
	conf := serverConfig(part[1])
	conf.Name = part[0]
	conf.ListenClientUrls, conf.AdvertiseClientUrls = one(part[2]), one(part[2])
	conf.ListenPeerUrls, conf.AdvertisePeerUrls = one(part[3]), one(part[3])
	conf.InitialCluster = part[4]
	if dir := part[5]; dir != "" { // TLS, with client certificates when there is a file of that name
		conf.ClientTLSInfo.CertFile, conf.ClientTLSInfo.KeyFile = filepath.Join(dir, "server.crt"), filepath.Join(dir, "server.key")
		if _, err := os.Stat(filepath.Join(dir, "require")); err == nil {
			conf.ClientTLSInfo.TrustedCAFile, conf.ClientTLSInfo.ClientCertAuth = filepath.Join(dir, "ca.crt"), true
		}
	}
	conf.AuthToken, conf.BcryptCost = "simple", 4 // the least: passwords are not what is tested
	conf.AuthTokenTTL = 1                         // second: so that tokens run out during a test
	server, err := embed.StartEtcd(conf)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer server.Close()
	_, _ = os.Stdin.Read(make([]byte, 1))
	return 0
}

// server is an etcd in a process of its own, to be killed, stopped and started again on the
// same address.
type server struct {
	name, peer, cluster string
	Dir                 string // its data
	Client              string // its URL
	certs               string // directory of its TLS files, or ""
	cmd                 *exec.Cmd
	stdin               io.Closer
}

// newServer prepares a one-member etcd.
func newServer(name, dir string) (*server, error) {
	client, err := freeURL()
	if err != nil {
		return nil, err
	}
	peer, err := freeURL()
	if err != nil {
		return nil, err
	}
	return &server{name: name, Dir: filepath.Join(dir, name), Client: client, peer: peer, cluster: name + "=" + peer}, nil
}

// own starts a one-member etcd for one test.
func own(t *testing.T) *server {
	t.Helper()
	s, err := newServer("own", t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	s.start(t)
	return s
}

// cluster starts three members.
func cluster(t *testing.T) []*server {
	t.Helper()
	var out []*server
	var names []string
	for _, name := range []string{"a", "b", "c"} {
		s, err := newServer(name, t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, s.cluster)
		out = append(out, s)
	}
	for _, s := range out {
		s.cluster = strings.Join(names, ",")
		s.start(t)
	}
	return out
}

func freeURL() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer l.Close()
	return "http://" + l.Addr().String(), nil
}

// start runs the server and does not wait until it answers.
func (s *server) start(t *testing.T) {
	t.Helper()
	if err := s.run(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.kill)
}

func (s *server) run() error {
	s.cmd = exec.Command(os.Args[0])
	if binary := os.Getenv("LODEN_ETCD_BINARY"); binary != "" && s.certs == "" { // another version of etcd
		s.cmd = exec.Command(binary, "--name", s.name, "--data-dir", s.Dir, "--listen-client-urls", s.Client, "--advertise-client-urls", s.Client,
			"--listen-peer-urls", s.peer, "--initial-advertise-peer-urls", s.peer, "--initial-cluster", s.cluster,
			"--unsafe-no-fsync", "--log-level", "panic", "--auth-token", "simple", "--auth-token-ttl", "1", "--bcrypt-cost", "4")
		s.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	}
	s.cmd.Env = append(os.Environ(), childEnv+"="+strings.Join([]string{s.name, s.Dir, s.Client, s.peer, s.cluster, s.certs}, "|"))
	s.cmd.Stderr = os.Stderr
	stdin, err := s.cmd.StdinPipe() // the server ends when this does
	if err != nil {
		return err
	}
	s.stdin = stdin
	return s.cmd.Start()
}

// kill is SIGKILL. It may be called again.
func (s *server) kill() {
	if s.cmd == nil {
		return
	}
	_ = s.cmd.Process.Kill()
	_ = s.cmd.Wait()
	_ = s.stdin.Close()
	s.cmd = nil
}
