package main

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/flannel-io/flannel/pkg/ip"
	"github.com/flannel-io/flannel/pkg/lease"
	"github.com/flannel-io/flannel/pkg/trafficmngr/iptables"

	"github.com/loden-net/loden/config/opt"
	"github.com/loden-net/loden/network/firewall"
)

// loden is our own firewall with flannel's rules: masquerade and forward, no guard.
func loden(backend string) subject {
	return subject{name: "loden, " + backend, start: func(ctx context.Context, subnet int) (func() error, error) {
		scopes := opt.Dual[firewall.Scope]{
			V4: opt.Some(firewall.Scope{Network: netip.MustParsePrefix("10.244.0.0/16"), Subnet: netip.MustParsePrefix(fmt.Sprintf("10.244.%d.0/24", subnet))}),
			V6: opt.Some(firewall.Scope{Network: netip.MustParsePrefix("fd44::/48"), Subnet: netip.MustParsePrefix(fmt.Sprintf("fd44:0:0:%d::/64", subnet))}),
		}
		want := firewall.Policy{Masq: true, RandomFully: true, Forward: true}.Config("loden0", scopes)
		f, err := firewall.Open(ctx, firewall.Options{Backend: backend})
		if err != nil {
			return nil, err
		}
		pass := func() error {
			changes, err := f.Changes(ctx, want)
			if err != nil {
				return err
			}
			for _, c := range changes {
				if err := c.Run(ctx); err != nil {
					return err
				}
			}
			return nil
		}
		return pass, pass()
	}}
}

// flannel is its iptables manager as its daemon drives it, with a resync period in seconds;
// 5 is its default. Its passes run by themselves.
func flannel(resync int) subject {
	period := time.Duration(resync) * time.Second
	s := subject{name: fmt.Sprintf("flannel, iptables, resync %d s", resync), period: period}
	previous := 0
	s.start = func(ctx context.Context, subnet int) (func() error, error) {
		m := &iptables.IPTablesManager{}
		if err := m.Init(ctx); err != nil {
			return nil, err
		}
		network4, network6 := net4("10.244.0.0/16"), net6("fd44::/48")
		var before4 ip.IP4Net
		before6 := ip.IP6Net{IP: ip.FromIP6(net.IPv6zero)}
		if previous != 0 {
			before4, before6 = net4(fmt.Sprintf("10.244.%d.0/24", previous)), net6(fmt.Sprintf("fd44:0:0:%d::/64", previous))
		}
		prevNet4, prevNet6 := network4, network6
		if previous == 0 {
			prevNet4, prevNet6 = ip.IP4Net{}, ip.IP6Net{IP: ip.FromIP6(net.IPv6zero)}
		}
		own := &lease.Lease{
			EnableIPv4: true, Subnet: net4(fmt.Sprintf("10.244.%d.0/24", subnet)),
			EnableIPv6: true, IPv6Subnet: net6(fmt.Sprintf("fd44:0:0:%d::/64", subnet)),
		}
		previous = subnet
		if err := m.SetupAndEnsureMasqRules(ctx, network4, before4, prevNet4, network6, before6, prevNet6, own, resync, false); err != nil {
			return nil, err
		}
		m.SetupAndEnsureForwardRules(ctx, network4, network6, resync)
		return func() error { return nil }, nil
	}
	return s
}

func net4(s string) ip.IP4Net {
	_, n, err := net.ParseCIDR(s)
	if err != nil {
		panic(err) // a constant of this program
	}
	return ip.FromIPNet(n)
}

func net6(s string) ip.IP6Net {
	_, n, err := net.ParseCIDR(s)
	if err != nil {
		panic(err) // a constant of this program
	}
	return ip.FromIP6Net(n)
}
