package interop_test

import (
	"bytes"
	"context"
	"fmt"
	"hash/crc32"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/loden-net/loden/test/sandbox"
	"github.com/loden-net/loden/test/sandbox/sandboxtest"
)

// patience bounds every wait for an expected event; the guest's processor is an emulated CPU.
const patience = 40 * time.Second

// machine is a host with an engine. Machine n is 192.0.2.n and 2001:db8::n outside until it
// moves, 10.0.0.n and fd00::n inside.
type machine struct {
	n      int
	host   *sandbox.Host
	engine engine
	public string
	at     int // the last number of its addresses outside
	port   int
	ear    *ear
}

// newMachine starts an engine, which ends with the test.
func newMachine(t *testing.T, n int, e engine) *machine {
	t.Helper()
	name := fmt.Sprintf("%08x-%d", crc32.ChecksumIEEE([]byte(t.Name())), n) // several tests run at once
	m := &machine{n: n, host: sandboxtest.Host(t, name), engine: e, at: n, port: 51820}
	if e.program == "" {
		m.ip(t, "link add wg0 type wireguard")
	} else {
		m.start(t)
	}
	m.newKey(t)
	m.output(t, "wg", "set", "wg0", "listen-port", fmt.Sprint(m.port))
	m.ear = newEar(t, m)
	return m
}

// start runs the engine's program until the test ends.
func (m *machine) start(t *testing.T) {
	t.Helper()
	bin := os.Getenv("LODEN_BIN")
	if bin == "" {
		bin = "../../bin"
	}
	program, err := filepath.Abs(filepath.Join(bin, m.engine.program))
	if err != nil {
		t.Fatal(err)
	}
	var said bytes.Buffer // read when the program has ended
	cmd := m.host.Command(context.Background(), program, m.engine.words...)
	cmd.Stdout, cmd.Stderr = &said, &said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if t.Failed() {
			t.Logf("%s on machine %d said:\n%s", m.engine.name, m.n, &said)
		}
	})
	// Not wg(8): it takes a socket that is bound but does not listen yet for a stale socket, and removes it.
	sandboxtest.Until(t, patience, m.engine.name, func() error {
		c, err := net.Dial("unix", m.host.Path("/run/wireguard")+"/wg0.sock")
		if err == nil {
			err = c.Close()
		}
		return err
	})
}

// newKey gives the interface a key that it has not had.
func (m *machine) newKey(t *testing.T) {
	t.Helper()
	m.public = strings.TrimSpace(m.output(t, "sh", "-c",
		"umask 077; wg genkey >/run/loden/key; wg set wg0 private-key /run/loden/key; wg pubkey </run/loden/key"))
}

// someKey returns a public key that nobody has.
func (m *machine) someKey(t *testing.T) string {
	t.Helper()
	return strings.TrimSpace(m.output(t, "sh", "-c", "wg genkey | wg pubkey"))
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

// wg runs `wg set wg0` for a peer with further words.
func (m *machine) wg(t *testing.T, peer string, words ...string) {
	t.Helper()
	m.output(t, "wg", append([]string{"set", "wg0", "peer", peer}, words...)...)
}

// shown returns the value of a peer in a list that `wg show` prints, empty when the peer is absent.
func (m *machine) shown(t *testing.T, list, peer string) string {
	t.Helper()
	for line := range strings.Lines(m.output(t, "wg", "show", "wg0", list)) {
		if key, value, ok := strings.Cut(strings.TrimSpace(line), "\t"); ok && key == peer {
			return value
		}
	}
	return ""
}

// received returns the bytes that the engine has counted from a peer.
func (m *machine) received(t *testing.T, peer string) int {
	t.Helper()
	text, _, _ := strings.Cut(m.shown(t, "transfer", peer), "\t")
	n, err := strconv.Atoi(text)
	if err != nil {
		t.Fatalf("bytes received from a peer: %v", err)
	}
	return n
}

// inside returns an address in the tunnel.
func inside(n int, v6 bool) string {
	if v6 {
		return fmt.Sprintf("fd00::%d", n)
	}
	return fmt.Sprintf("10.0.0.%d", n)
}

// outside returns an address on the wire.
func outside(n int, v6 bool) netip.Addr {
	if v6 {
		return netip.MustParseAddr(fmt.Sprintf("2001:db8::%d", n))
	}
	return netip.MustParseAddr(fmt.Sprintf("192.0.2.%d", n))
}

// endpoint returns the address and port at which peers find the machine.
func (m *machine) endpoint(v6 bool) netip.AddrPort {
	return netip.AddrPortFrom(outside(m.at, v6), uint16(m.port))
}

// allowed returns the two addresses inside of a number, as wg(8) wants them.
func allowed(n int) string {
	return fmt.Sprintf("%s/32,%s/128", inside(n, false), inside(n, true))
}

// move describes how a machine moves: from a number to another, and to a port. The address of
// IPv4 is removed first, since removing it removes the other addresses of its network. A single process does it all:
// packets on their way to the old place are lost, and in QEMU five processes are so slow that the
// engine, as it should, begins a handshake for want of an answer.
const move = `
ip addr del 192.0.2.%[1]d/24 dev eth0
ip addr add 192.0.2.%[2]d/24 dev eth0
ip addr add 2001:db8::%[2]d/64 dev eth0 nodad
ip addr del 2001:db8::%[1]d/64 dev eth0
wg set wg0 listen-port %[3]d`

// moves gives the machine other addresses on the wire, and its engine another port.
func (m *machine) moves(t *testing.T, at, port int) {
	t.Helper()
	m.output(t, "sh", "-ec", fmt.Sprintf(move, m.at, at, port))
	m.at, m.port = at, port
}
