package main

import (
	"context"
	"fmt"
	"os/exec"
	"strings"
	"time"

	"github.com/loden-net/loden/network/sandbox"
)

// contender is an engine under test: how it is started for an interface.
type contender struct {
	name    string
	command func(iface string) []string
}

func contenders(o options) []contender {
	engine := func(kind string) func(string) []string {
		return func(iface string) []string {
			return []string{o.loden, "engine", "--log-level", "warn", "--engine", kind, iface}
		}
	}
	base := contender{"wireguard-go", engine("wireguard-go")}
	if o.wireguardGo != "" {
		base.command = func(iface string) []string { return []string{o.wireguardGo, "-f", iface} }
	}
	return []contender{base, {"loden", engine("loden")}}
}

const podMTU = 1420 // 1500 less 40 + 8 + 32 of an IPv6 underlay

// side is one half of the bed: a host, its pod, its engine.
type side struct {
	host, pod *sandbox.Host
	engine    *exec.Cmd
	outer     string // address on the wire
	inner     string // of the pod
	prefixes  []string
	public    string
}

// bed is two sides on one wire.
type bed struct {
	sides   [2]*side
	cleanup []func()
}

// close ends engines and removes the hosts, last made first.
func (b *bed) close() {
	for i := len(b.cleanup) - 1; i >= 0; i-- {
		b.cleanup[i]()
	}
}

// build makes the bed with contender c in it, ready when the pods reach each other.
func build(ctx context.Context, o options, c contender) (*bed, error) {
	b := &bed{}
	for n := range b.sides {
		s, err := b.newSide(o, n+1)
		if err != nil {
			b.close()
			return nil, err
		}
		b.sides[n] = s
	}
	if err := b.join(ctx, o, c); err != nil {
		b.close()
		return nil, err
	}
	return b, nil
}

// newSide makes host n and its pod.
func (b *bed) newSide(o options, n int) (*side, error) {
	s := &side{
		outer: fmt.Sprintf("192.0.2.%d", n), inner: fmt.Sprintf("10.244.%d.2", n),
		prefixes: []string{fmt.Sprintf("10.244.%d.0/24", n), fmt.Sprintf("fd00:244:%d::/64", n)},
	}
	if o.v6 {
		s.outer, s.inner = fmt.Sprintf("2001:db8::%d", n), fmt.Sprintf("fd00:244:%d::2", n)
	}
	for _, h := range []struct {
		name string
		to   **sandbox.Host
	}{{"host", &s.host}, {"pod", &s.pod}} {
		made, err := sandbox.NewHost(fmt.Sprintf("%s%d", h.name, n))
		if err != nil {
			return nil, err
		}
		*h.to = made
		b.cleanup = append(b.cleanup, func() { _ = made.Close() })
	}
	if err := sandbox.Wire(s.host, "pod0", s.pod, "eth0"); err != nil {
		return nil, err
	}
	err := ip(s.host, fmt.Sprintf(`
		link set pod0 mtu %d
		addr add 10.244.%d.1/24 dev pod0
		addr add fd00:244:%d::1/64 dev pod0 nodad`, podMTU, n, n))
	if err == nil {
		err = ip(s.pod, fmt.Sprintf(`
			link set eth0 mtu %d
			addr add 10.244.%d.2/24 dev eth0
			addr add fd00:244:%d::2/64 dev eth0 nodad
			route add default via 10.244.%d.1
			-6 route add default via fd00:244:%d::1`, podMTU, n, n, n, n))
	}
	if err == nil {
		err = s.host.Run("sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1")
	}
	return s, err
}

// ip runs one ip(8) command per line.
func ip(h *sandbox.Host, script string) error {
	for line := range strings.Lines(script) {
		if words := strings.Fields(line); len(words) > 0 {
			if err := h.Run("ip", words...); err != nil {
				return err
			}
		}
	}
	return nil
}

// join lays the wire, starts the engines and makes them peers.
func (b *bed) join(ctx context.Context, o options, c contender) error {
	if err := sandbox.Wire(b.sides[0].host, "eth0", b.sides[1].host, "eth0"); err != nil {
		return err
	}
	for n, s := range b.sides {
		if err := ip(s.host, fmt.Sprintf("addr add 192.0.2.%d/24 dev eth0\naddr add 2001:db8::%d/64 dev eth0 nodad", n+1, n+1)); err != nil {
			return err
		}
		if o.noSegmentation {
			if err := s.host.Run("ethtool", "-K", "eth0", "gso", "off", "tso", "off", "tx-udp-segmentation", "off"); err != nil {
				return err
			}
		}
		if err := b.start(ctx, s, c); err != nil {
			return err
		}
	}
	for n, s := range b.sides {
		other := b.sides[1-n]
		endpoint := other.outer + ":51820"
		if o.v6 {
			endpoint = "[" + other.outer + "]:51820"
		}
		err := s.host.Run("wg", "set", "wg0", "peer", other.public, "endpoint", endpoint, "allowed-ips", strings.Join(other.prefixes, ","))
		if err == nil {
			err = ip(s.host, fmt.Sprintf("link set wg0 mtu %d up\nroute add %s dev wg0\n-6 route add %s dev wg0", podMTU, other.prefixes[0], other.prefixes[1]))
		}
		if err != nil {
			return err
		}
	}
	return b.sides[0].reach(ctx, b.sides[1].inner)
}

// start runs the engine of a side and gives it a key.
func (b *bed) start(ctx context.Context, s *side, c contender) error {
	words := c.command("wg0")
	s.engine = s.host.Command(ctx, words[0], words[1:]...)
	if err := s.engine.Start(); err != nil {
		return err
	}
	b.cleanup = append(b.cleanup, func() { // before the host goes
		_ = s.engine.Process.Kill()
		_ = s.engine.Wait()
		_ = s.host.Run("ip", "link", "del", "wg0") // a persistent one is there still
	})
	err := eventually(ctx, 10*time.Second, func() error { return s.host.Run("wg", "show", "wg0") })
	if err != nil {
		return err
	}
	s.public, err = s.host.Output("sh", "-c", "umask 077; wg genkey >/run/loden/key; wg set wg0 listen-port 51820 private-key /run/loden/key; wg pubkey </run/loden/key")
	s.public = strings.TrimSpace(s.public)
	return err
}

// reach waits until the other pod answers.
func (s *side) reach(ctx context.Context, to string) error {
	return eventually(ctx, 20*time.Second, func() error { return s.pod.Run("ping", "-c1", "-W1", to) })
}

// eventually asks until there is no error, for at most limit.
func eventually(ctx context.Context, limit time.Duration, ask func() error) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	for {
		err := ask()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(50 * time.Millisecond):
		}
	}
}
