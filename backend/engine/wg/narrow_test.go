package wg

import (
	"errors"
	"fmt"
	"net"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/loden-net/loden/test/sandbox"
	"github.com/loden-net/loden/test/sandbox/sandboxtest"
)

// lines runs ip(8) once per line on a host.
func lines(t *testing.T, h *sandbox.Host, all ...string) {
	t.Helper()
	for _, line := range all {
		if err := h.Run("ip", strings.Fields(line)...); err != nil {
			t.Fatal(err)
		}
	}
}

// forwards makes a host a router of both families.
func forwards(t *testing.T, h *sandbox.Host) {
	t.Helper()
	if err := h.Run("sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1"); err != nil {
		t.Fatal(err)
	}
}

// refused sends a UDP packet from a host and returns the error that comes back.
func refused(t *testing.T, h *sandbox.Host, to string) error {
	t.Helper()
	var c net.Conn
	// Without IP_RECVERR this error is not passed to a UDP socket: ip(7).
	dialer := net.Dialer{Control: func(network, _ string, raw syscall.RawConn) (err error) {
		level, option := unix.IPPROTO_IP, unix.IP_RECVERR
		if network == "udp6" {
			level, option = unix.IPPROTO_IPV6, unix.IPV6_RECVERR
		}
		controlErr := raw.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), level, option, 1) })
		return errors.Join(controlErr, err)
	}}
	if err := h.Do(func() (err error) { c, err = dialer.Dial("udp", net.JoinHostPort(to, "9")); return err }); err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Write([]byte("hello")); err != nil {
		t.Fatal(err)
	}
	_, err := c.Read(make([]byte, 1))
	return err
}

func TestKernelPassesRefusalsOn(t *testing.T) {
	a, pod := newMachine(t, 1), sandboxtest.Host(t, "pod")
	if err := sandbox.Wire(a.host, "pod0", pod, "eth0"); err != nil {
		t.Fatal(err)
	}
	forwards(t, a.host)
	if err := a.host.Run("sysctl", "-qw", "net.ipv4.conf.all.rp_filter=1"); err != nil {
		t.Fatal(err)
	}
	lines(t, a.host, "link set wg0 mtu 1420 up", "addr add 10.0.0.1/16 dev wg0", "addr add fd00::1/64 dev wg0 nodad",
		"addr add 10.7.0.1/24 dev pod0", "addr add fd07::1/64 dev pod0 nodad")
	lines(t, pod, "addr add 10.7.0.2/24 dev eth0", "addr add fd07::2/64 dev eth0 nodad",
		"route add default via 10.7.0.1", "route add default via fd07::1")
	for _, h := range []*sandbox.Host{a.host, pod} {
		for _, to := range []string{"10.0.0.9", "fd00::9"} {
			if err := refused(t, h, to); !errors.Is(err, unix.EHOSTUNREACH) {
				t.Errorf("to %s from %s: %v", to, h.Name, err)
			}
		}
	}
}

// apart wires two machines through a router, whose way to the second takes outer packets of
// that many bytes.
func apart(t *testing.T, a, b *machine, v6 bool, outerMTU int) {
	t.Helper()
	r := sandboxtest.Host(t, "router")
	forwards(t, r)
	for n, m := range []*machine{a, b} {
		n++
		port := fmt.Sprintf("eth%d", n)
		if err := sandbox.Wire(m.host, "eth0", r, port); err != nil {
			t.Fatal(err)
		}
		lines(t, r, fmt.Sprintf("addr add 192.0.%d.254/24 dev %s", n+1, port), fmt.Sprintf("addr add 2001:db8:%d::254/64 dev %s nodad", n, port))
		lines(t, m.host, fmt.Sprintf("addr add 192.0.%d.%d/24 dev eth0", n+1, n), fmt.Sprintf("addr add 2001:db8:%d::%d/64 dev eth0 nodad", n, n),
			fmt.Sprintf("route add default via 192.0.%d.254", n+1), fmt.Sprintf("route add default via 2001:db8:%d::254", n),
			"link set wg0 mtu 1420 up", fmt.Sprintf("addr add 10.0.0.%d/24 dev wg0", n), fmt.Sprintf("addr add fd00::%d/64 dev wg0 nodad", n))
		m.device.LinkChanged()
	}
	lines(t, r, fmt.Sprintf("link set eth2 mtu %d", outerMTU))
	lines(t, b.host, fmt.Sprintf("link set eth0 mtu %d", outerMTU))
	a.meet(b.node, "")
	b.meet(a.node, "")
	to := [2]string{"192.0.2.1:51820", "192.0.3.2:51820"}
	if v6 {
		to = [2]string{"[2001:db8:1::1]:51820", "[2001:db8:2::2]:51820"}
	}
	a.mustSet("public_key=%s\nendpoint=%s\n", b.public.Hex(), to[1])
	b.mustSet("public_key=%s\nendpoint=%s\n", a.public.Hex(), to[0])
}

func TestNarrowPathTakesOuterFragments(t *testing.T) {
	for _, outer := range []int{1280, 1400} {
		for family, v6 := range map[string]bool{"IPv4": false, "IPv6": true} {
			t.Run(fmt.Sprintf("%s, %d", family, outer), func(t *testing.T) {
				a, b := newMachine(t, 1), newMachine(t, 2)
				apart(t, a, b, v6, outer)
				a.ping(t, "10.0.0.2")
				// The first one that is too large teaches the socket the path's MTU.
				sandboxtest.Until(t, 20*time.Second, "a large ping", func() error {
					return a.host.Run("ping", "-c1", "-W1", "-Mdo", "-s1392", "10.0.0.2")
				})
				a.ping(t, "fd00::2", "-Mdo", "-s1372")
				b.ping(t, "10.0.0.1", "-Mdo", "-s1392")
				transfer(t, a, b, "10.0.0.2", 4<<20)
				transfer(t, b, a, "fd00::1", 4<<20)
			})
		}
	}
}

func TestInnerPathMTUComesBackThroughTheTunnel(t *testing.T) {
	a, b := newMachine(t, 1), newMachine(t, 2)
	connect(t, a, b, false, 1500, 1420)
	pod := sandboxtest.Host(t, "pod")
	if err := sandbox.Wire(b.host, "pod0", pod, "eth0"); err != nil {
		t.Fatal(err)
	}
	forwards(t, b.host)
	lines(t, b.host, "link set pod0 mtu 1300", "addr add 10.7.0.1/24 dev pod0", "addr add fd07::1/64 dev pod0 nodad")
	lines(t, pod, "link set eth0 mtu 1300", "addr add 10.7.0.2/24 dev eth0", "addr add fd07::2/64 dev eth0 nodad",
		"route add default via 10.7.0.1", "route add default via fd07::1")
	lines(t, a.host, "route add 10.7.0.0/24 dev wg0", "route add fd07::/64 dev wg0")
	a.mustSet("public_key=%s\nallowed_ip=10.7.0.0/24\nallowed_ip=fd07::/64\n", b.public.Hex())
	for _, to := range []string{"10.7.0.2", "fd07::2"} {
		a.ping(t, to)
		if out, err := a.host.Output("ping", "-c1", "-W10", "-Mdo", "-s1350", to); err == nil {
			t.Errorf("a packet of 1378 bytes or more crossed 1300: %s", out)
		}
		out, err := a.host.Output("ip", "route", "get", to)
		if err != nil || !strings.Contains(out, "mtu 1300") {
			t.Errorf("route to %s: %v: %s", to, err, out)
		}
	}
	for _, to := range []string{"10.7.0.2", "fd07::2"} {
		transfer(t, a, &machine{node: b.node, host: pod}, to, 1<<20)
	}
}

func TestKernelLearnsASmallerMTUOfTheInterface(t *testing.T) {
	a, b := newMachine(t, 1), newMachine(t, 2)
	connect(t, a, b, false, 1500, 1420)
	a.ping(t, "10.0.0.2")
	lines(t, a.host, "link set wg0 mtu 1300", "route add 10.0.0.2/32 dev wg0 mtu 1420") // so the kernel still sends 1420
	a.device.LinkChanged()
	if out, err := a.host.Output("ping", "-c1", "-W10", "-Mdo", "-s1392", "10.0.0.2"); err == nil {
		t.Errorf("1420 bytes left by an interface of 1300: %s", out)
	}
	out, err := a.host.Output("ip", "route", "get", "10.0.0.2")
	if err != nil || !strings.Contains(out, "mtu 1300") {
		t.Errorf("route: %v: %s", err, out)
	}
	transfer(t, a, b, "10.0.0.2", 1<<20)
}
