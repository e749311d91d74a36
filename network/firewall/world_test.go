package firewall_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/loden-net/loden/config/opt"
	"github.com/loden-net/loden/network/firewall"
	"github.com/loden-net/loden/test/sandbox"
	"github.com/loden-net/loden/test/sandbox/sandboxtest"
)

// world is a node with a pod, an uplink and a tunnel, each link a wire of its own:
//
//	pod ──cni0── node ──eth0── outside
//	              └──loden0── far (a pod behind another node)
type world struct {
	pod, node, outside, far *sandbox.Host
}

// addresses of the world, by family.
type addresses struct{ pod, bridge, tunnel, far, uplink, outside string }

func addressesOf(f opt.Family) addresses {
	if f == opt.V6 {
		return addresses{
			pod: "fd44:0:0:1::2", bridge: "fd44:0:0:1::1", tunnel: "fd44:0:0:1::",
			far: "fd44:0:0:2::2", uplink: "2001:db8::1", outside: "2001:db8::9",
		}
	}
	return addresses{
		pod: "10.244.1.2", bridge: "10.244.1.1", tunnel: "10.244.1.0",
		far: "10.244.2.2", uplink: "192.0.2.1", outside: "192.0.2.9",
	}
}

// newWorld builds it. The outside knows pods by a route over the uplink, as a neighbour on
// the same network may.
func newWorld(t *testing.T) world {
	t.Helper()
	w := world{
		pod: sandboxtest.Host(t, "pod"), node: sandboxtest.Host(t, "node"),
		outside: sandboxtest.Host(t, "outside"), far: sandboxtest.Host(t, "far"),
	}
	for _, wire := range []struct {
		iface string
		other *sandbox.Host
	}{{"cni0", w.pod}, {"eth0", w.outside}, {"loden0", w.far}} {
		if err := sandbox.Wire(w.node, wire.iface, wire.other, "eth0"); err != nil {
			t.Fatal(err)
		}
	}
	on(t, w.node, "sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1 net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.default.rp_filter=0")
	for _, f := range opt.Families() {
		a := addressesOf(f)
		ip, short, host := "ip -4 ", "/24", "/32"
		if f == opt.V6 {
			ip, short, host = "ip -6 ", "/64", "/128"
		}
		nodad := map[opt.Family]string{opt.V4: "", opt.V6: " nodad"}[f]
		on(t, w.node, ip+"addr add "+a.bridge+short+" dev cni0"+nodad)
		on(t, w.node, ip+"addr add "+a.uplink+short+" dev eth0"+nodad)
		on(t, w.node, ip+"addr add "+a.tunnel+host+" dev loden0"+nodad)
		on(t, w.pod, ip+"addr add "+a.pod+short+" dev eth0"+nodad)
		on(t, w.pod, ip+"route add default via "+a.bridge)
		on(t, w.outside, ip+"addr add "+a.outside+short+" dev eth0"+nodad)
		on(t, w.outside, ip+"route add "+network(f)+" via "+a.uplink)
		on(t, w.far, ip+"addr add "+a.far+host+" dev eth0"+nodad)
		on(t, w.far, ip+"route add "+a.tunnel+" dev eth0; "+ip+"route add "+network(f)+" via "+a.tunnel+" dev eth0 onlink")
		on(t, w.node, ip+"route add "+network(f)+" dev loden0")
	}
	return w
}

func network(f opt.Family) string {
	return map[opt.Family]string{opt.V4: "10.244.0.0/16", opt.V6: "fd44::/48"}[f]
}

// on runs a script on a host.
func on(t testing.TB, h *sandbox.Host, script string) string {
	t.Helper()
	out, err := h.Output("sh", "-ec", script)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// do runs fn in the host's network namespace.
func do(t testing.TB, h *sandbox.Host, fn func() error) {
	t.Helper()
	if err := h.Do(fn); err != nil {
		t.Fatal(err)
	}
}

// install makes the node's rules those of want.
func (w world) install(t testing.TB, b bed, want firewall.Config) *firewall.Firewall {
	t.Helper()
	var f *firewall.Firewall
	do(t, w.node, func() error {
		var err error
		if f, err = firewall.Open(t.Context(), firewall.Options{Backend: b.backend}); err != nil {
			return err
		}
		return makeSo(t.Context(), f, want)
	})
	return f
}

// makeSo runs the changes to want and checks that no change is left.
func makeSo(ctx context.Context, f *firewall.Firewall, want firewall.Config) error {
	changes, err := f.Changes(ctx, want)
	if err != nil {
		return err
	}
	for _, c := range changes {
		if err := c.Run(ctx); err != nil {
			return err
		}
	}
	again, err := f.Changes(ctx, want)
	if err == nil && len(again) > 0 {
		err = fmt.Errorf("not done: %v", again)
	}
	return err
}

// echoPort is the UDP port on which every host answers with the address of the asking host.
const echoPort = 4000

// echo answers datagrams and connections on a host with the address that they came from.
func echo(t testing.TB, h *sandbox.Host) {
	t.Helper()
	for _, netw := range []string{"udp4", "udp6"} {
		var conn net.PacketConn
		do(t, h, func() (err error) {
			var lc net.ListenConfig
			conn, err = lc.ListenPacket(t.Context(), netw, fmt.Sprintf(":%d", echoPort))
			return err
		})
		done := make(chan struct{})
		go func() {
			defer close(done)
			buf := make([]byte, 100)
			for {
				_, from, err := conn.ReadFrom(buf)
				if err != nil {
					return
				}
				_, _ = conn.WriteTo([]byte(from.String()), from)
			}
		}()
		t.Cleanup(func() { conn.Close(); <-done })
	}
}

// question is a datagram from a host; from may be empty, and mark zero.
type question struct {
	from, to string
	mark     int
}

// errSilence means that no answer came.
var errSilence = errors.New("no answer")

// ask sends datagrams until one is answered and returns the source that the far end saw.
// Where silence is expected a single datagram is enough.
func ask(h *sandbox.Host, q question, silent bool) (seen string, err error) {
	err = h.Do(func() error {
		dialer := net.Dialer{Control: func(_, _ string, c syscall.RawConn) error {
			var inner error
			err := c.Control(func(fd uintptr) {
				if q.mark != 0 {
					inner = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_MARK, q.mark)
				}
			})
			return errors.Join(err, inner)
		}}
		if q.from != "" {
			dialer.LocalAddr = net.UDPAddrFromAddrPort(netip.AddrPortFrom(netip.MustParseAddr(q.from), 0))
		}
		conn, err := dialer.Dial("udp", net.JoinHostPort(q.to, fmt.Sprint(echoPort)))
		if err != nil {
			return err
		}
		defer conn.Close()
		wait, tries := time.Second, 10
		if silent {
			wait, tries = 150*time.Millisecond, 1
		}
		buf := make([]byte, 100)
		for range tries {
			if _, err := conn.Write([]byte("who?")); err != nil {
				return err
			}
			if err := conn.SetReadDeadline(time.Now().Add(wait)); err != nil {
				return err
			}
			n, err := conn.Read(buf)
			if errors.Is(err, os.ErrDeadlineExceeded) {
				continue
			}
			if err != nil {
				return err
			}
			seen = netip.MustParseAddrPort(string(buf[:n])).Addr().String()
			return nil
		}
		return errSilence
	})
	return seen, err
}

// must asks and wants an answer.
func must(t testing.TB, h *sandbox.Host, q question) string {
	t.Helper()
	seen, err := ask(h, q, false)
	if err != nil {
		t.Fatalf("%s asks %s from %q: %v", h.Name, q.to, q.from, err)
	}
	return seen
}

// in says which family a test line is about.
func in(f opt.Family, format string, args ...any) string {
	return f.String() + ": " + strings.TrimSpace(fmt.Sprintf(format, args...))
}
