package firewall_test

import (
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/loden-net/loden/config/opt"
	"github.com/loden-net/loden/network/wire"
	"github.com/loden-net/loden/test/sandbox"
)

func prefix(s string) netip.Prefix { return netip.MustParsePrefix(s) }

// onEachWorld runs a test on every bed in a world of its own.
func onEachWorld(t *testing.T, test func(t *testing.T, b bed, w world)) {
	t.Helper()
	for _, b := range beds() {
		t.Run(b.name, func(t *testing.T) {
			w := newWorld(t)
			if b.legacy {
				on(t, w.node, "iptables-legacy -t mangle -A INPUT -j ACCEPT; ip6tables-legacy -t mangle -A INPUT -j ACCEPT")
			}
			test(t, b, w)
		})
	}
}

// sniff passes on the source of the first packet to dst that arrives on the host's eth0.
// The returned function ends it.
func sniff(t testing.TB, h *sandbox.Host, dst string, sources chan<- string) (stop func()) {
	t.Helper()
	a := netip.MustParseAddr(dst)
	var s *wire.Sniffer
	do(t, h, func() (err error) {
		only := opt.Dual[netip.Prefix]{}.With(opt.FamilyOf(a), netip.PrefixFrom(a, a.BitLen()))
		s, err = wire.Open("eth0", wire.Filter{Networks: only})
		return err
	})
	ctx, cancel := cancelable(t)
	done := make(chan error, 1)
	go func() {
		done <- s.Run(ctx, func(p wire.Packet) {
			if p.Dst == a && p.Protocol == unix.IPPROTO_UDP {
				select {
				case sources <- p.Src.String():
				default:
				}
			}
		})
	}()
	return func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
}

// sendTo sends a datagram from an address by an interface.
func sendTo(from, to, iface string) error {
	local := netip.AddrPortFrom(netip.MustParseAddr(from), 0)
	conn, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(local))
	if err != nil {
		return err
	}
	defer conn.Close()
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	var inner error
	if err := raw.Control(func(fd uintptr) { inner = unix.BindToDevice(int(fd), iface) }); err != nil || inner != nil {
		return fmt.Errorf("bind to %s: %v %v", iface, err, inner)
	}
	_, err = conn.WriteToUDPAddrPort([]byte("all"), netip.AddrPortFrom(netip.MustParseAddr(to).WithZone(zone(to, iface)), 5353))
	return err
}

func zone(to, iface string) string {
	if strings.HasPrefix(to, "ff02:") || strings.HasPrefix(to, "fe80:") {
		return iface
	}
	return ""
}
