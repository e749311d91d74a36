package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"

	"github.com/loden-net/loden/test/sandbox"
)

const (
	farAddress  = "192.0.2.1"
	nodeAddress = "192.0.2.11"
	storeURL    = "http://" + farAddress + ":2379"
	storePrefix = "/coreos.com/network"
	document    = `{"Network":"10.0.0.0/8","SubnetLen":24,"EnableIPv6":true,"IPv6Network":"fd10::/32","Backend":{"Type":"wireguard"}}`
)

// bed is the surroundings of a subject: its host, and the host with etcd and the endpoints of
// all leases.
type bed struct {
	node, far *sandbox.Host
	client    *clientv3.Client
	dir       string // of this bed, on a disk
	cleanup   []func()
}

func newBed(ctx context.Context, o options) (b *bed, err error) {
	b = &bed{}
	defer func() {
		if err != nil {
			b.close()
		}
	}()
	if b.dir, err = os.MkdirTemp(o.dir, "bed-"); err != nil {
		return b, err
	}
	b.cleanup = append(b.cleanup, func() { _ = os.RemoveAll(b.dir) })
	for name, host := range map[string]**sandbox.Host{"node": &b.node, "far": &b.far} {
		if *host, err = sandbox.NewHost(name); err != nil {
			return b, err
		}
		h := *host
		b.cleanup = append(b.cleanup, func() { _ = errors.Join(h.Kill(), h.Close()) })
	}
	if err := sandbox.Wire(b.node, "eth0", b.far, "eth0"); err != nil {
		return b, err
	}
	err = errors.Join(
		b.node.Run("ip", "addr", "add", nodeAddress+"/24", "dev", "eth0"),
		b.node.Run("ip", "route", "add", "default", "via", farAddress),
		b.far.Run("ip", "addr", "add", farAddress+"/24", "dev", "eth0"),
		b.far.Run("ip", "route", "add", "local", endpoints.String(), "dev", "lo"),
	)
	if err != nil {
		return b, err
	}
	return b, b.startStore(ctx, o)
}

// startStore starts etcd and writes the network document.
func (b *bed) startStore(ctx context.Context, o options) error {
	const peer = "http://127.0.0.1:2380" // the cluster has a single member
	cmd := b.far.Command(ctx, o.etcd, "--data-dir", filepath.Join(b.dir, "etcd"),
		"--listen-client-urls", storeURL, "--advertise-client-urls", storeURL,
		"--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer, "--initial-cluster", "default="+peer,
		"--log-level", "error", "--unsafe-no-fsync")
	if _, err := b.start(cmd, "etcd.log"); err != nil {
		return err
	}
	dial := func(ctx context.Context, address string) (conn net.Conn, err error) {
		err = b.far.Do(func() error {
			conn, err = new(net.Dialer).DialContext(ctx, "tcp", address)
			return err
		})
		return conn, err
	}
	var err error
	b.client, err = clientv3.New(clientv3.Config{
		Endpoints: []string{storeURL}, Logger: zap.NewNop(),
		DialOptions: []grpc.DialOption{grpc.WithContextDialer(dial)},
	})
	if err != nil {
		return err
	}
	b.cleanup = append(b.cleanup, func() { _ = b.client.Close() })
	return eventually(ctx, 20*time.Second, func() error {
		ctx, stop := context.WithTimeout(ctx, 2*time.Second)
		defer stop()
		_, err := b.client.Put(ctx, storePrefix+"/config", document)
		return err
	})
}

// start starts a program with both streams in a log of the bed; the bed's end ends it.
func (b *bed) start(cmd *exec.Cmd, log string) (*exec.Cmd, error) {
	file, err := os.OpenFile(filepath.Join(b.dir, log), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return cmd, err
	}
	defer file.Close()
	if cmd.Stdout == nil {
		cmd.Stdout = file
	}
	cmd.Stderr = file
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		return cmd, fmt.Errorf("start %s: %w", cmd.Path, err)
	}
	b.cleanup = append(b.cleanup, func() { _, _ = cmd.Process.Kill(), cmd.Wait() })
	return cmd, nil
}

// log returns a log of the bed.
func (b *bed) log(name string) []byte {
	text, _ := os.ReadFile(filepath.Join(b.dir, name))
	return text
}

// tail returns the end of a log, for an error.
func (b *bed) tail(name string) string {
	text := b.log(name)
	return string(text[max(0, len(text)-600):])
}

func (b *bed) close() {
	for i := len(b.cleanup) - 1; i >= 0; i-- {
		b.cleanup[i]()
	}
}

// eventually repeats fn every few milliseconds until it has no error, for at most limit.
func eventually(ctx context.Context, limit time.Duration, fn func() error) error {
	for end := time.Now().Add(limit); ; wait(ctx, 3*time.Millisecond) {
		err := fn()
		if err == nil || ctx.Err() != nil {
			return errors.Join(err, ctx.Err())
		}
		if time.Now().After(end) {
			return fmt.Errorf("not within %v: %w", limit, err)
		}
	}
}
