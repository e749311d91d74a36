package faults_test

import (
	"testing"

	"github.com/loden-net/loden/test/lab"
)

// cluster is a healthy cluster of a kind.
type cluster struct {
	options  lab.Options
	document string                     // network document instead of the usual one
	prepare  func(t *testing.T, b *bed) // before any daemon runs
	third    []string                   // flags of the third node; nil leaves it without a daemon
	halves   bool                       // the far side's half of `loden why` is not known
}

// clusters are the set-ups on which no command may name a fault.
func clusters() map[string]cluster {
	return map[string]cluster{
		"dual stack":            {},
		"IPv6 only":             {options: lab.Options{Families: lab.IPv6, Underlay: lab.IPv6}},
		"IPv4 only, nftables":   {options: lab.Options{Families: lab.IPv4, Flags: []string{"--firewall", "nftables"}}},
		"mixed engines":         {options: lab.Options{Engines: []string{"loden", "wireguard-go"}}},
		"IPv6 underlay":         {options: lab.Options{Underlay: lab.IPv6}},
		"without probes":        {options: lab.Options{Flags: []string{"--probe-interval", "0"}}, halves: true},
		"own forward rules off": {options: lab.Options{Flags: []string{"--iptables-forward-rules=false"}}},
		"a peer that does not speak the probes' protocol": {third: []string{"--probe-interval", "0"}},
		// The address of the NAT is the source of what the third node sends, and leads to it.
		"a node behind a NAT with a forwarded port": {third: []string{"--public-ip", "172.20.0.99"}, prepare: func(t *testing.T, b *bed) {
			sh(t, b.c, "ip addr add 172.20.0.99/16 dev eth0; nft 'add table ip nat99; add chain ip nat99 out { type nat hook postrouting priority 90; }; add rule ip nat99 out oifname eth0 udp sport 51820 snat to 172.20.0.99'")
		}},
		"a LAN inside the overlay": {options: lab.Options{Families: lab.IPv4}, document: `{"Network":"198.16.0.0/12","SubnetLen":24,"SubnetMin":"198.20.0.0","SubnetMax":"198.31.0.0","Backend":{"Type":"wireguard"}}`},
	}
}

// TestHealthyClustersGiveNoFalseAlarm looks at a healthy cluster of every kind.
func TestHealthyClustersGiveNoFalseAlarm(t *testing.T) {
	for name, c := range clusters() {
		if name != "dual stack" && !*all {
			continue
		}
		t.Run(name, func(t *testing.T) {
			c.options.Nodes = 2
			if c.third != nil {
				c.options.Nodes = 3
			}
			b := newBed(t, c.options, 0)
			if c.document != "" {
				b.etcdctl(t, "put", "/coreos.com/network/config", c.document)
			}
			if c.prepare != nil {
				c.prepare(t, b)
			}
			for _, n := range b.Nodes {
				startNode(t, n, c.flagsOf(b, n)...)
				if _, err := n.Attach(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
			healthy(t, b.Nodes...)
			for f, from := range b.a.Pods[0].Addrs.All() {
				to, _ := b.b.Pods[0].Addrs.Of(f).Get()
				if out, err := b.a.Loden("why", from.String(), to.String()); err != nil && !c.halves {
					t.Errorf("loden why: %v\n%s", err, out)
				}
			}
		})
	}
}

// flagsOf returns the further flags of a node.
func (c cluster) flagsOf(b *bed, n *lab.Node) []string {
	if n == b.c {
		return c.third
	}
	return nil
}
