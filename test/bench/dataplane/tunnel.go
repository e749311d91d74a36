package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// tunnel puts the contender between the hosts.
func (b *bed) tunnel(ctx context.Context) error {
	switch {
	case b.wireGuard():
		return b.startWireGuard(ctx)
	case b.role == roleNebula:
		return b.startNebula(ctx)
	}
	for n, s := range b.sides {
		other := b.sides[1-n]
		if err := ip(s.host, fmt.Sprintf("route add %s via %s\n-6 route add %s via %s",
			other.prefixes[0], other.outer[0], other.prefixes[1], other.outer[1])); err != nil {
			return err
		}
	}
	return nil
}

func (b *bed) startWireGuard(ctx context.Context) error {
	for _, s := range b.sides {
		if err := b.startEngine(ctx, s); err != nil {
			return err
		}
	}
	for n, s := range b.sides {
		other := b.sides[1-n]
		err := s.host.Run("wg", "set", "wg0", "peer", other.public, "allowed-ips", strings.Join(other.prefixes[:], ","))
		if err == nil {
			err = ip(s.host, fmt.Sprintf("link set wg0 mtu %d up\nroute add %s dev wg0\n-6 route add %s dev wg0", podMTU, other.prefixes[0], other.prefixes[1]))
		}
		if err != nil {
			return err
		}
	}
	return b.underlay(0)
}

// startEngine runs the engine of a side and gives it a key.
func (b *bed) startEngine(ctx context.Context, s *side) error {
	words := b.command("wg0")
	s.engine = s.host.Command(ctx, words[0], words[1:]...)
	b.cleanup = append(b.cleanup, func() { _ = s.host.Run("ip", "link", "del", "wg0") }) // a persistent interface stays
	if err := b.start(s.engine); err != nil {
		return err
	}
	err := eventually(ctx, 10*time.Second, func() error { return s.host.Run("wg", "show", "wg0") })
	if err != nil {
		return err
	}
	s.public, err = s.host.Output("sh", "-c", "umask 077; wg genkey >/run/loden/key; wg set wg0 listen-port 51820 private-key /run/loden/key; wg pubkey </run/loden/key")
	s.public = strings.TrimSpace(s.public)
	return err
}

// underlay moves a WireGuard tunnel to a family: 0 is IPv4, 1 IPv6.
func (b *bed) underlay(family int) error {
	for n, s := range b.sides {
		other := b.sides[1-n]
		if err := s.host.Run("wg", "set", "wg0", "peer", other.public, "endpoint", endpoint(other, family)); err != nil {
			return err
		}
	}
	return nil
}

func endpoint(s *side, family int) string {
	if family == 1 {
		return "[" + s.outer[1] + "]:51820"
	}
	return s.outer[0] + ":51820"
}

// checkUnderlay wants both ends to send to addresses of a family.
func (b *bed) checkUnderlay(family int) error {
	for n, s := range b.sides {
		got, err := s.host.Output("wg", "show", "wg0", "endpoints")
		if err != nil {
			return err
		}
		if want := endpoint(b.sides[1-n], family); !strings.HasSuffix(strings.TrimSpace(got), "\t"+want) {
			return fmt.Errorf("side %d of %s sends to %q, not to %s", n+1, b.name, strings.TrimSpace(got), want)
		}
	}
	return nil
}

// startNebula makes certificates and starts nebula with the pods as unsafe routes: its
// fastest cipher, and the MTU of the other contenders.
func (b *bed) startNebula(ctx context.Context) error {
	dir, err := os.MkdirTemp("/run", "nebula") // of the sandbox
	if err != nil {
		return err
	}
	b.cleanup = append(b.cleanup, func() { _ = os.RemoveAll(dir) })
	certificate := func(args ...string) error {
		cmd := exec.CommandContext(ctx, filepath.Join(filepath.Dir(b.program), "nebula-cert"), args...)
		cmd.Dir = dir
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("make certificates: %w: %s", err, out)
		}
		return nil
	}
	if err := certificate("ca", "-name", "ca", "-duration", "48h"); err != nil {
		return err
	}
	for n, s := range b.sides {
		name := fmt.Sprint(n + 1)
		if err := certificate("sign", "-name", name, "-networks", "10.99.0."+name+"/24", "-unsafe-networks", s.prefixes[0]); err != nil {
			return err
		}
		other := b.sides[1-n]
		config := strings.NewReplacer("DIR", dir, "SELF", name, "OTHER", fmt.Sprint(2-n),
			"ENDPOINT", other.outer[0], "PREFIX", other.prefixes[0], "MTU", fmt.Sprint(podMTU)).Replace(nebulaConfig)
		file := filepath.Join(dir, name+".yml")
		if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
			return err
		}
		s.engine = s.host.Command(ctx, b.program, "-config", file)
		if err := b.start(s.engine); err != nil {
			return err
		}
	}
	return nil
}

const nebulaConfig = `
pki: {ca: DIR/ca.crt, cert: DIR/SELF.crt, key: DIR/SELF.key}
static_host_map: {"10.99.0.OTHER": ["ENDPOINT:4242"]}
lighthouse: {am_lighthouse: false, hosts: []}
listen: {host: 0.0.0.0, port: 4242}
cipher: aes
tun: {dev: nebula0, mtu: MTU, unsafe_routes: [{route: PREFIX, via: 10.99.0.OTHER}]}
logging: {level: error}
firewall:
  outbound: [{port: any, proto: any, host: any, local_cidr: 0.0.0.0/0}]
  inbound: [{port: any, proto: any, host: any, local_cidr: 0.0.0.0/0}]
`
