// Package interop_test owns the proof that loden's engine and other programs understand
// each other on real interfaces: over IPv4 and IPv6, and on wires that lose and reorder. It
// knows all of them by their command lines and wg(8) only.
//
// `make test` builds the programs first; with plain `go test` run `make interop-programs`.
package interop_test

import (
	"bytes"
	"context"
	"fmt"
	"hash/crc32"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/loden-net/loden/network/sandbox"
	"github.com/loden-net/loden/network/sandbox/sandboxtest"
)

func TestMain(m *testing.M) { sandboxtest.Main(m) }

// engine is a program that carries an interface.
type engine struct {
	name    string
	program string // below bin
	words   []string
}

var (
	ours     = engine{"loden", "loden", []string{"engine", "--log-level", "warn", "--engine", "loden", "wg0"}}
	upstream = engine{"wireguard-go", "bench/wireguard-go", []string{"-f", "wg0"}}
	fork     = engine{"Tailscale's fork", "interop/wireguard-tailscale", []string{"-f", "wg0"}}
)

// machine is a host with an engine. Machine n is 192.0.2.n and 2001:db8::n outside, 10.0.0.n
// and fd00::n inside.
type machine struct {
	n      int
	host   *sandbox.Host
	public string
}

// newMachine starts an engine, which ends with the test.
func newMachine(t *testing.T, n int, e engine) *machine {
	t.Helper()
	bin := os.Getenv("LODEN_BIN")
	if bin == "" {
		bin = "../../bin"
	}
	program, err := filepath.Abs(filepath.Join(bin, e.program))
	if err != nil {
		t.Fatal(err)
	}
	m := &machine{n: n, host: sandboxtest.Host(t, fmt.Sprint("machine", n))}
	var said bytes.Buffer // read when the program has ended
	cmd := m.host.Command(context.Background(), program, e.words...)
	cmd.Stdout, cmd.Stderr = &said, &said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if t.Failed() {
			t.Logf("%s on machine %d said:\n%s", e.name, n, &said)
		}
	})
	// Not wg(8): it takes a socket that is bound but does not listen yet for a left one, and removes it.
	sandboxtest.Until(t, 10*time.Second, e.name, func() error {
		c, err := net.Dial("unix", m.host.Path("/run/wireguard")+"/wg0.sock")
		if err == nil {
			err = c.Close()
		}
		return err
	})
	m.public = strings.TrimSpace(m.output(t, "sh", "-c",
		"umask 077; wg genkey >/run/loden/key; wg set wg0 listen-port 51820 private-key /run/loden/key; wg pubkey </run/loden/key"))
	return m
}

func (m *machine) output(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := m.host.Output(name, args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// ip runs ip(8) with a line of words.
func (m *machine) ip(t *testing.T, format string, args ...any) {
	t.Helper()
	m.output(t, "ip", strings.Fields(fmt.Sprintf(format, args...))...)
}

// connect wires two machines and makes them peers; v6 is the family outside.
func connect(t *testing.T, a, b *machine, v6 bool) {
	t.Helper()
	if err := sandbox.Wire(a.host, "eth0", b.host, "eth0"); err != nil {
		t.Fatal(err)
	}
	for _, pair := range [][2]*machine{{a, b}, {b, a}} {
		m, other := pair[0], pair[1]
		m.ip(t, "addr add 192.0.2.%d/24 dev eth0", m.n)
		m.ip(t, "addr add 2001:db8::%d/64 dev eth0 nodad", m.n)
		m.ip(t, "link set wg0 mtu 1420 up")
		m.ip(t, "addr add 10.0.0.%d/24 dev wg0", m.n)
		m.ip(t, "addr add fd00::%d/64 dev wg0 nodad", m.n)
		endpoint := fmt.Sprintf("192.0.2.%d:51820", other.n)
		if v6 {
			endpoint = fmt.Sprintf("[2001:db8::%d]:51820", other.n)
		}
		m.output(t, "wg", "set", "wg0", "peer", other.public, "endpoint", endpoint,
			"allowed-ips", fmt.Sprintf("10.0.0.%d/32,fd00::%d/128", other.n, other.n))
	}
}

// transfer sends size random bytes over TCP from a to b and wants them whole.
func transfer(t *testing.T, a, b *machine, to string, size int64) {
	t.Helper()
	var l net.Listener
	err := b.host.Do(func() (err error) {
		l, err = net.Listen("tcp", net.JoinHostPort(to, "0"))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	got := make(chan uint32, 1)
	go func() {
		sum := crc32.NewIEEE()
		if c, err := l.Accept(); err == nil {
			_ = c.SetDeadline(time.Now().Add(time.Minute))
			_, _ = io.Copy(sum, c) // a cut shows in the sum
			_ = c.Close()
		}
		got <- sum.Sum32()
	}()
	var c net.Conn
	err = a.host.Do(func() (err error) {
		c, err = net.DialTimeout("tcp", l.Addr().String(), 30*time.Second)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	_ = c.SetDeadline(time.Now().Add(time.Minute))
	sum := crc32.NewIEEE()
	_, err = io.Copy(io.MultiWriter(c, sum), io.LimitReader(rand.NewChaCha8([32]byte{1}), size))
	_ = c.Close()
	if err != nil {
		t.Fatalf("send %d bytes to %s: %v", size, to, err)
	}
	if got := <-got; got != sum.Sum32() {
		t.Errorf("%d bytes to %s: altered on their way", size, to)
	}
}

func TestOtherProgramsUnderstandTheEngine(t *testing.T) {
	for _, other := range []engine{upstream, fork} {
		for _, outside := range []string{"IPv4", "IPv6"} {
			t.Run(other.name+" over "+outside, func(t *testing.T) {
				a, b := newMachine(t, 1, ours), newMachine(t, 2, other)
				connect(t, a, b, outside == "IPv6")
				const size = 32 << 20
				transfer(t, a, b, "10.0.0.2", size)
				transfer(t, b, a, "10.0.0.1", size)
				transfer(t, a, b, "fd00::2", size)
				transfer(t, b, a, "fd00::1", size)
			})
		}
	}
}
