package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"time"

	"github.com/loden-net/loden/test/sandbox"
)

const podMTU = 1420 // 1500 less 40 + 8 + 32 of an IPv6 underlay

// side is a half of the bed: a host, its pod, its engine.
type side struct {
	host, pod *sandbox.Host
	engine    *exec.Cmd // nil without a tunnel
	outer     [2]string // addresses on the wire: IPv4, IPv6
	inner     [2]string // of the pod
	prefixes  [2]string // of its pods
	public    string    // WireGuard key
}

// bed is two sides on a wire.
type bed struct {
	contender
	sides   [2]*side
	log     *os.File // output of the programs; nil: discarded
	cleanup []func()
}

// close ends engines and removes the hosts, last made first.
func (b *bed) close() {
	for i := len(b.cleanup) - 1; i >= 0; i-- {
		b.cleanup[i]()
	}
}

// build makes bed number id with contender c in it, ready when the pods reach each other.
func build(ctx context.Context, id int, c contender) (*bed, error) {
	log, err := os.CreateTemp("/run", "bed") // of the sandbox
	if err != nil {
		return nil, err
	}
	b := &bed{contender: c, log: log, cleanup: []func(){func() { _ = log.Close() }}}
	if err = b.join(ctx, id); err == nil {
		err = b.serve(ctx)
	}
	if err != nil {
		said, _ := os.ReadFile(log.Name())
		b.close()
		return nil, fmt.Errorf("build a bed for %s: %w\n%s", c.name, err, said)
	}
	return b, nil
}

// join makes the sides, lays the wire and starts the tunnel.
func (b *bed) join(ctx context.Context, id int) error {
	for n := range b.sides {
		s, err := b.newSide(id, n+1)
		if err != nil {
			return err
		}
		b.sides[n] = s
	}
	if err := sandbox.Wire(b.sides[0].host, "eth0", b.sides[1].host, "eth0"); err != nil {
		return err
	}
	for _, s := range b.sides {
		if err := ip(s.host, fmt.Sprintf("addr add %s/24 dev eth0\naddr add %s/64 dev eth0 nodad", s.outer[0], s.outer[1])); err != nil {
			return err
		}
	}
	if err := b.tunnel(ctx); err != nil {
		return err
	}
	return b.sides[0].reach(b.sides[1].inner[0])
}

// newSide makes host n and its pod.
func (b *bed) newSide(id, n int) (*side, error) {
	s := &side{
		outer:    [2]string{fmt.Sprintf("192.0.2.%d", n), fmt.Sprintf("2001:db8::%d", n)},
		inner:    [2]string{fmt.Sprintf("10.244.%d.2", n), fmt.Sprintf("fd00:244:%d::2", n)},
		prefixes: [2]string{fmt.Sprintf("10.244.%d.0/24", n), fmt.Sprintf("fd00:244:%d::/64", n)},
	}
	for _, h := range []struct {
		name string
		to   **sandbox.Host
	}{{"host", &s.host}, {"pod", &s.pod}} {
		made, err := sandbox.NewHost(fmt.Sprintf("bed%d-%s%d", id, h.name, n))
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
			addr add %s/24 dev eth0
			addr add %s/64 dev eth0 nodad
			route add default via 10.244.%d.1
			-6 route add default via fd00:244:%d::1`, podMTU, s.inner[0], s.inner[1], n, n))
	}
	if err == nil {
		err = s.host.Run("sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1")
	}
	return s, err
}

// ip runs an ip(8) command per line.
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

// start begins a program that ends with the bed.
func (b *bed) start(cmd *exec.Cmd) error {
	if b.log != nil {
		cmd.Stdout, cmd.Stderr = b.log, b.log
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	b.cleanup = append(b.cleanup, func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	return nil
}

// serve starts the servers in pod 2.
func (b *bed) serve(ctx context.Context) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	pod := b.sides[1].pod
	for _, cmd := range []*exec.Cmd{pod.Command(ctx, "iperf3", "-s"), pod.Command(ctx, self, "count")} {
		if err := b.start(cmd); err != nil {
			return err
		}
	}
	return eventually(ctx, 10*time.Second, func() error {
		listening, err := pod.Output("ss", "-Htln")
		if err == nil && (!strings.Contains(listening, ":5201") || !strings.Contains(listening, ":"+echoPort)) {
			err = fmt.Errorf("servers do not listen: %s", listening)
		}
		return err
	})
}

// reach waits until the other pod answers.
func (s *side) reach(to string) error {
	return eventually(context.Background(), 20*time.Second, func() error { return s.pod.Run("ping", "-c1", "-W1", to) })
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
