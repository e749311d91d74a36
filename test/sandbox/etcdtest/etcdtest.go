// Package etcdtest runs etcd servers for tests, each in a process of its own. The server is
// the program that `make tools` builds from test/tools/etcd, so the product's module does not
// depend on etcd's server. The package does not know Loden.
package etcdtest

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// BinaryEnv names another etcd program than bin/etcd, for tests with other versions of etcd.
const BinaryEnv = "LODEN_ETCD_BINARY"

// startLimit is how long a server may take from its start until it accepts clients.
const startLimit = 30 * time.Second

// Binary returns the path of the etcd program: the value of BinaryEnv, else bin/etcd at the
// root of the tree around the working directory. When bin/etcd is missing, Binary builds it
// and blocks for up to a minute.
func Binary() (string, error) {
	if path := os.Getenv(BinaryEnv); path != "" {
		return path, nil
	}
	root, err := root()
	if err != nil {
		return "", err
	}
	path := filepath.Join(root, "bin", "etcd")
	if _, err := os.Stat(path); err == nil {
		return path, nil
	}
	return path, build(root, path)
}

// root returns the directory of the tree: the nearest with a Makefile and a go.mod.
func root() (string, error) {
	start, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for dir := start; ; dir = filepath.Dir(dir) {
		_, noMake := os.Stat(filepath.Join(dir, "Makefile"))
		_, noModule := os.Stat(filepath.Join(dir, "go.mod"))
		if noMake == nil && noModule == nil {
			return dir, nil
		}
		if dir == filepath.Dir(dir) {
			return "", fmt.Errorf("find the root of the tree above %s: no directory with Makefile and go.mod", start)
		}
	}
}

// build builds the server into path. Several test programs may call it at once: a lock lets
// a single build at a time, and the finished program appears by a rename.
func build(root, path string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	lock, err := os.OpenFile(path+".lock", os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return err
	}
	defer lock.Close()
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
		return fmt.Errorf("lock %s: %w", lock.Name(), err)
	}
	if _, err := os.Stat(path); err == nil {
		return nil // built while this process waited for the lock
	}
	cmd := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", path+".new", "go.etcd.io/etcd/server/v3")
	cmd.Dir = filepath.Join(root, "test/tools/etcd")
	cmd.Env = append(os.Environ(), "GOWORK=off", "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build etcd in %s: %w: %s (run `make tools`)", cmd.Dir, err, out)
	}
	return os.Rename(path+".new", path)
}

// Start runs a single server on free ports of loopback until the test ends, and returns the
// URL for clients once the server accepts them. flags are further flags of etcd.
func Start(t testing.TB, flags ...string) string {
	t.Helper()
	binary, err := Binary()
	if err != nil {
		t.Fatal(err)
	}
	client, peer := FreeURL(t), FreeURL(t)
	cmd := exec.Command(binary, append([]string{
		"--data-dir", t.TempDir(), "--unsafe-no-fsync", "--log-level", "error",
		"--listen-client-urls", client, "--advertise-client-urls", client,
		"--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer, "--initial-cluster", "default=" + peer,
	}, flags...)...)
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait() // it reports the kill
	})
	if err := accepts(strings.TrimPrefix(client, "http://")); err != nil {
		t.Fatal(err)
	}
	return client
}

// accepts waits until a TCP address accepts connections; etcd opens its port when it can serve.
func accepts(address string) error {
	ctx, cancel := context.WithTimeout(context.Background(), startLimit)
	defer cancel()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		conn, err := new(net.Dialer).DialContext(ctx, "tcp", address)
		if err == nil {
			return conn.Close()
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for etcd at %s: %w", address, errors.Join(ctx.Err(), err))
		case <-tick.C:
		}
	}
}

// FreeURL returns an http URL with a port of loopback that was free a moment ago.
func FreeURL(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return "http://" + l.Addr().String()
}
