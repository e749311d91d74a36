package system_test

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/loden-net/loden/test/lab"
	"github.com/loden-net/loden/test/sandbox"
	"github.com/loden-net/loden/test/sandbox/sandboxtest"
)

// TestForwardingIsRepairedWithinASecond switches forwarding off under a running node, as other
// tools do (a firewall's reload, sysctl --system). The kernel announces it, so the daemon does
// not wait for its resync of 30 seconds.
func TestForwardingIsRepairedWithinASecond(t *testing.T) {
	l := upLab(t, lab.Options{Nodes: 1})
	n := l.Nodes[0]
	for _, key := range []string{"net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding"} {
		quiet(t, n)
		if err := n.Run("sysctl", "-qw", key+"=0"); err != nil {
			t.Fatal(err)
		}
		begun := time.Now()
		sandboxtest.Until(t, 10*time.Second, key+" to be 1", func() error {
			out, err := n.Output("sysctl", "-n", key)
			if err == nil && strings.TrimSpace(out) != "1" {
				err = fmt.Errorf("it is %s", out)
			}
			return err
		})
		took := time.Since(begun)
		t.Logf("%s repaired after %v", key, took)
		if took > 3*time.Second { // a second, and a loaded machine
			t.Errorf("%s was repaired after %v", key, took)
		}
	}
}

// quiet waits until the node has made no pass for two seconds, so that the next pass has a
// reason.
func quiet(t *testing.T, n *lab.Node) {
	t.Helper()
	var last float64
	since := time.Now()
	sandboxtest.Until(t, standLimit, "two seconds without a pass", func() error {
		var rep struct{ Passes struct{ Total float64 } }
		_, text, err := n.Ask(t.Context(), "/status")
		if err == nil {
			err = json.Unmarshal([]byte(text), &rep)
		}
		if rep.Passes.Total != last {
			last, since = rep.Passes.Total, time.Now()
		}
		if err == nil && time.Since(since) < 2*time.Second {
			err = fmt.Errorf("pass %v was %v ago", last, time.Since(since))
		}
		return err
	})
}

// TestRouterAdvertisementsStayWithTheirOwner sends real router advertisements to two uplinks of
// a node. Where the kernel learned by them (accept_ra 1), it goes on although the node
// forwards. Where it did not (accept_ra 0, as under systemd-networkd and NetworkManager), it
// learns nothing: fault C4 was a second address there.
func TestRouterAdvertisementsStayWithTheirOwner(t *testing.T) {
	l := storeLab(t, lab.Options{Nodes: 1})
	n := l.Nodes[0]
	if err := n.Run("sysctl", "-qw", "net.ipv6.conf.eth0.accept_ra=0", "net.ipv6.conf.eth1.accept_ra=1"); err != nil {
		t.Fatal(err)
	}
	learns(t, l, n, 0xa)
	startAndWait(t, n, "--iface", "eth1")
	learns(t, l, n, 0xb)
	out, err := n.Output("sysctl", "-n", "net.ipv6.conf.eth0.accept_ra", "net.ipv6.conf.eth1.accept_ra")
	if err != nil || strings.Join(strings.Fields(out), " ") != "0 2" {
		t.Errorf("accept_ra of eth0 and eth1: %q, %v; want 0 and 2", out, err)
	}
}

// learns advertises a prefix to each uplink of the node, and wants an address of it on eth1
// alone.
func learns(t *testing.T, l *lab.Lab, n *lab.Node, number byte) {
	t.Helper()
	on := func(uplink byte) netip.Addr {
		return netip.AddrFrom16([16]byte{0x20, 1, 0xd, 0xb8, uplink, number})
	}
	var addresses string
	sandboxtest.Until(t, 10*time.Second, "an address on eth1", func() error {
		err := errors.Join(advertise(l.Store.Host, on(0xe0)), advertise(l.Outside.Host, on(0xe1))) // fails while a link-local address is tentative
		if err != nil {
			return err
		}
		addresses, err = n.Output("ip", "-6", "-o", "address")
		if err == nil && !strings.Contains(addresses, strings.TrimSuffix(on(0xe1).String(), ":")) {
			err = fmt.Errorf("addresses:\n%s", addresses)
		}
		return err
	})
	if strings.Contains(addresses, strings.TrimSuffix(on(0xe0).String(), ":")) {
		t.Errorf("eth0 learned an address:\n%s", addresses)
	}
}

// advertise sends a router advertisement (RFC 4861 section 4.2) for a /64 from a host's eth0.
func advertise(h *sandbox.Host, prefix netip.Addr) error {
	return h.Do(func() error {
		link, err := net.InterfaceByName("eth0")
		if err != nil {
			return err
		}
		s, err := unix.Socket(unix.AF_INET6, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_ICMPV6)
		if err != nil {
			return err
		}
		defer unix.Close(s)
		if err := unix.SetsockoptInt(s, unix.IPPROTO_IPV6, unix.IPV6_MULTICAST_HOPS, 255); err != nil {
			return err
		}
		m := make([]byte, 16+32)
		m[0], m[4] = 134, 64                        // type; hop limit of the hosts
		binary.BigEndian.PutUint16(m[6:], 1800)     // seconds that the sender is a default router
		m[16], m[17], m[18], m[19] = 3, 4, 64, 0xc0 // prefix information, 32 bytes, /64, on-link and autonomous
		binary.BigEndian.PutUint32(m[20:], 3600)    // seconds that the prefix is valid
		binary.BigEndian.PutUint32(m[24:], 1800)    // seconds that it is preferred
		copy(m[32:], prefix.AsSlice())
		to := &unix.SockaddrInet6{Addr: netip.MustParseAddr("ff02::1").As16(), ZoneId: uint32(link.Index)}
		return unix.Sendto(s, m, 0, to)
	})
}
