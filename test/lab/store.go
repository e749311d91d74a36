package lab

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/loden-net/loden/test/sandbox"
)

// stopLimit is how long a program may take to end by itself.
const stopLimit = 20 * time.Second

// Store is the host of the cluster's etcd.
type Store struct {
	*sandbox.Host
	Addr netip.Addr // on the underlay

	program string // the etcd server
	process *Process
}

// Endpoint returns the URL that nodes reach etcd at.
func (s *Store) Endpoint() string {
	return "http://" + netip.AddrPortFrom(s.Addr, etcdPort).String()
}

// Start starts etcd on the data of its last start and waits until it answers. A crash of the
// machine ends the lab, so etcd does not sync its data to disk.
func (s *Store) Start(ctx context.Context) error {
	const peer = "http://127.0.0.1:2380" // the cluster has a single member, so no other member uses it
	cmd := s.Command(context.WithoutCancel(ctx), s.program, "--data-dir", s.Path("/var/lib/loden/etcd"),
		"--listen-client-urls", s.Endpoint(), "--advertise-client-urls", s.Endpoint(),
		"--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer, "--initial-cluster", "default="+peer,
		"--log-level", "error", "--unsafe-no-fsync")
	process, err := start("etcd", cmd, s.Path("/run/loden/etcd.log"))
	if err != nil {
		return err
	}
	s.process = process
	return until(ctx, process, "etcd", s.dial)
}

// dial reports whether the client port is open; etcd opens it when it can serve.
func (s *Store) dial() error {
	return s.Do(func() error {
		conn, err := net.DialTimeout("tcp", netip.AddrPortFrom(s.Addr, etcdPort).String(), time.Second)
		if err != nil {
			return err
		}
		return conn.Close()
	})
}

// Stop ends etcd; its data stays.
func (s *Store) Stop() error { return s.process.Stop(syscall.SIGKILL, stopLimit) }

// Put writes the network document with `loden network put` and further flags.
func (l *Lab) Put(document []byte, flags ...string) error {
	file := filepath.Join(l.Store.Path("/run/loden"), "network.json")
	if err := os.WriteFile(file, document, 0o644); err != nil {
		return fmt.Errorf("put network: %w", err)
	}
	args := append([]string{"network", "put", "--etcd-endpoints", l.Store.Endpoint(), file}, flags...)
	return l.Store.Run(l.Program("loden"), args...)
}
