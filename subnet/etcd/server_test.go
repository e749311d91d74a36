package etcd_test

import (
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"go.uber.org/goleak"
)

// shared is the address of an etcd that all tests use, each under a prefix of its own.
// Tests that hurt etcd start their own.
var shared string

func TestMain(m *testing.M) { os.Exit(runWithServer(m)) }

// runWithServer runs the tests beside an etcd in a process of its own, so that leaks found
// here are ours.
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
		fmt.Fprintln(os.Stderr, err)
		return 1
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

// binary returns etcd's server: the file that LODEN_ETCD_BINARY names, else the pinned
// version, which make builds.
func binary() (string, error) {
	path := os.Getenv("LODEN_ETCD_BINARY")
	if path == "" {
		path = filepath.Join("..", "..", "bin", "etcd")
	}
	if _, err := os.Stat(path); err != nil {
		return "", fmt.Errorf("start etcd for the tests: %w: run `make bin/etcd` first", err)
	}
	return path, nil
}

// server is an etcd in a process of its own, to be killed, stopped and started again on the
// same address.
type server struct {
	name, peer, cluster string
	Dir                 string // its data
	Client              string // its URL
	certs               string // directory of its TLS files, or ""
	flags               []string
	cmd                 *exec.Cmd
}

// newServer prepares an etcd of a single member.
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

// own starts an etcd of a single member for a test.
func own(t *testing.T, flags ...string) *server {
	t.Helper()
	s, err := newServer("own", t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	s.flags = flags
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

// freeURL returns an address of loopback with a free port. The port lies below the kernel's
// range of local ports (32768 and up), so that no connection takes it while a test has its
// server stopped.
func freeURL() (string, error) {
	var last error
	for range 100 {
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", 15000+rand.IntN(15000)))
		if err == nil {
			return "http://" + l.Addr().String(), l.Close()
		}
		last = err
	}
	return "", last
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
	path, err := binary()
	if err != nil {
		return err
	}
	args := append([]string{
		"--name", s.name, "--data-dir", s.Dir, "--listen-client-urls", s.Client, "--advertise-client-urls", s.Client,
		"--listen-peer-urls", s.peer, "--initial-advertise-peer-urls", s.peer, "--initial-cluster", s.cluster,
		"--unsafe-no-fsync", "--log-level", "panic",
		"--auth-token", "simple", "--auth-token-ttl", "1", // second: so that tokens run out during a test
		"--bcrypt-cost", "4", // the least: passwords are not tested here
	}, s.flags...)
	if s.certs != "" {
		args = append(args, "--cert-file", filepath.Join(s.certs, "server.crt"), "--key-file", filepath.Join(s.certs, "server.key"))
		if _, err := os.Stat(filepath.Join(s.certs, "require")); err == nil { // client certificates
			args = append(args, "--client-cert-auth", "--trusted-ca-file", filepath.Join(s.certs, "ca.crt"))
		}
	}
	s.cmd = exec.Command(path, args...)
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} // the server ends with the tests
	s.cmd.Stderr = os.Stderr
	return s.cmd.Start()
}

// kill is SIGKILL. It may be called again.
func (s *server) kill() {
	if s.cmd == nil {
		return
	}
	_ = s.cmd.Process.Kill()
	_ = s.cmd.Wait()
	s.cmd = nil
}
