package backend_test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"github.com/loden-net/loden/backend"
	"github.com/loden-net/loden/backend/engine"
	"github.com/loden-net/loden/config/opt"
	"github.com/loden-net/loden/config/sorted"
	"github.com/loden-net/loden/test/sandbox"
	"github.com/loden-net/loden/test/sandbox/sandboxtest"
)

// node is a host with a process that owns its Device.
//
//	a: eth0 192.0.2.1, 2001:db8::1 ──── eth0 192.0.2.2, 2001:db8::2 :b
//	   loden0 10.244.1.0, fd44:1::          loden0 10.244.2.0, fd44:2::
type node struct {
	*sandbox.Host
	t      testing.TB
	number int // 1, 2, ...
	cmd    *exec.Cmd
	in     *json.Encoder
	out    *json.Decoder
	close  func()
	psk    []byte // sent with every request
}

// newNode makes a host, named after the test so that its directories are new, with an underlay address in both families and no process yet.
func newNode(t testing.TB, number int) *node {
	t.Helper()
	n := &node{Host: sandboxtest.Host(t, fmt.Sprintf("%s-%d", strings.ReplaceAll(t.Name(), "/", "-"), number)), t: t, number: number}
	t.Cleanup(func() {
		if owner, running, err := engine.Running(n.Path(runDir), iface); err == nil && running {
			_ = syscall.Kill(owner.PID, syscall.SIGKILL)
		}
	})
	return n
}

// pair makes two nodes on a wire.
func pair(t testing.TB) (a, b *node) {
	t.Helper()
	a, b = newNode(t, 1), newNode(t, 2)
	if err := sandbox.Wire(a.Host, "eth0", b.Host, "eth0"); err != nil {
		t.Fatal(err)
	}
	for _, n := range []*node{a, b} {
		n.must("ip", "addr", "add", fmt.Sprintf("192.0.2.%d/24", n.number), "dev", "eth0")
		n.must("ip", "addr", "add", fmt.Sprintf("2001:db8::%d/64", n.number), "dev", "eth0", "nodad")
	}
	return a, b
}

// start starts the node's process. It is told to end with the test.
func (n *node) start(engineName string, wrap ...string) {
	n.t.Helper()
	args := append(wrap, os.Args[0], "node", engineName)
	n.cmd = n.Command(n.t.Context(), args[0], args[1:]...)
	in, err := n.cmd.StdinPipe()
	if err != nil {
		n.t.Fatal(err)
	}
	out, err := n.cmd.StdoutPipe()
	if err != nil {
		n.t.Fatal(err)
	}
	n.cmd.Stderr = testWriter{n.t, fmt.Sprintf("node %d: ", n.number)}
	if err := n.cmd.Start(); err != nil {
		n.t.Fatal(err)
	}
	n.in, n.out = json.NewEncoder(in), json.NewDecoder(bufio.NewReader(out))
	cmd := n.cmd
	done := false
	n.close = func() {
		if !done {
			done = true
			_ = in.Close()
			_ = cmd.Wait()
		}
	}
	n.t.Cleanup(n.close)
}

// kill ends the node's process as a crash does.
func (n *node) kill() {
	_ = n.cmd.Process.Signal(syscall.SIGKILL)
	n.close()
}

func (n *node) ask(r request) reply {
	n.t.Helper()
	r.PSK = n.psk
	if err := n.in.Encode(r); err != nil {
		n.t.Fatalf("node %d: %v", n.number, err)
	}
	var got reply
	if err := n.out.Decode(&got); err != nil {
		n.t.Fatalf("node %d: %v", n.number, err)
	}
	return got
}

// apply makes the device as wanted and returns the changes that were made. It fails the
// test when a change failed, or when asking again finds something left to do.
func (n *node) apply(want opt.Option[backend.Config]) []string {
	n.t.Helper()
	got := n.ask(request{Op: "apply", Want: want})
	if got.Error != "" {
		n.t.Fatalf("node %d: apply %q: %s", n.number, got.Changes, got.Error)
	}
	if again := n.ask(request{Op: "plan", Want: want}); len(again.Changes) > 0 || again.Error != "" {
		n.t.Fatalf("node %d: after %q a second look finds %q %s", n.number, got.Changes, again.Changes, again.Error)
	}
	return got.Changes
}

func (n *node) status() backend.Status {
	n.t.Helper()
	got := n.ask(request{Op: "status"})
	if got.Error != "" {
		n.t.Fatal(got.Error)
	}
	return got.Status
}

// public returns the node's public key; start made it.
func (n *node) public() wgtypes.Key {
	n.t.Helper()
	var key backend.PrivateKey
	sandboxtest.Until(n.t, time.Minute, "the node's key", func() (err error) {
		key, err = backend.ReadKey(n.Path("/var/lib/loden"))
		return err
	})
	return key.Public()
}

// addresses returns the node's overlay addresses.
func (n *node) addresses() opt.Dual[netip.Addr] {
	return opt.Dual[netip.Addr]{}.
		With(opt.V4, netip.MustParseAddr(fmt.Sprintf("10.244.%d.0", n.number))).
		With(opt.V6, netip.MustParseAddr(fmt.Sprintf("fd44:%d::", n.number)))
}

// peer is the node as its peers should see it, reached over the underlay of family f.
func (n *node) peer(f opt.Family) backend.Peer {
	at := netip.MustParseAddrPort(fmt.Sprintf("192.0.2.%d:51820", n.number))
	if f == opt.V6 {
		at = netip.MustParseAddrPort(fmt.Sprintf("[2001:db8::%d]:51820", n.number))
	}
	subnets := opt.Dual[netip.Prefix]{}.
		With(opt.V4, netip.MustParsePrefix(fmt.Sprintf("10.244.%d.0/24", n.number))).
		With(opt.V6, netip.MustParsePrefix(fmt.Sprintf("fd44:%d::/64", n.number)))
	return backend.Peer{Key: n.public(), Endpoint: at, Subnets: subnets}
}

// config is the desired state of the node with the peers.
func (n *node) config(peers ...backend.Peer) backend.Config {
	return backend.Config{Port: 51820, MTU: 1420, Addresses: n.addresses(), Peers: sorted.Of(peers...)}
}

// route sends the overlay into the tunnel, which is not the device's business.
func (n *node) route() {
	n.t.Helper()
	n.must("ip", "route", "replace", "10.244.0.0/16", "dev", iface, "src", fmt.Sprintf("10.244.%d.0", n.number))
	n.must("ip", "-6", "route", "replace", "fd44::/16", "dev", iface, "src", fmt.Sprintf("fd44:%d::", n.number))
}

// connect applies the configuration that joins two nodes, and the routes.
func connect(a, b *node, f opt.Family) {
	a.t.Helper()
	a.apply(opt.Some(a.config(b.peer(f))))
	b.apply(opt.Some(b.config(a.peer(f))))
	a.route()
	b.route()
}

// reaches fails the test unless the other's overlay addresses answer.
func (n *node) reaches(other *node) {
	n.t.Helper()
	for _, address := range other.addresses().All() {
		sandboxtest.Until(n.t, time.Minute, "an answer from "+address.String(), func() error {
			return n.Run("ping", "-c1", "-W2", address.String())
		})
	}
}

// engine returns the owner of the node's engine and fails the test when there is none.
func (n *node) engine() engine.Owner {
	n.t.Helper()
	owner, running, err := engine.Running(n.Path(runDir), iface)
	if err != nil || !running {
		n.t.Fatalf("node %d: engine runs: %t, %v", n.number, running, err)
	}
	return owner
}

// killEngine ends the node's engine as a crash does and waits until it is gone.
func (n *node) killEngine(s syscall.Signal) {
	n.t.Helper()
	if err := syscall.Kill(n.engine().PID, s); err != nil {
		n.t.Fatal(err)
	}
	n.engineGone()
}

func (n *node) engineGone() {
	n.t.Helper()
	sandboxtest.Until(n.t, time.Minute, "the engine's end", func() error {
		if _, running, err := engine.Running(n.Path(runDir), iface); err != nil || running {
			return fmt.Errorf("running: %t, %v", running, err)
		}
		return nil
	})
}

// must runs a command on the host.
func (n *node) must(name string, args ...string) string {
	n.t.Helper()
	out, err := n.Output(name, args...)
	if err != nil {
		n.t.Fatal(err)
	}
	return out
}

// testWriter logs the output of a process.
type testWriter struct {
	t      testing.TB
	prefix string
}

func (w testWriter) Write(b []byte) (int, error) {
	w.t.Log(w.prefix + strings.TrimSpace(string(b)))
	return len(b), nil
}
