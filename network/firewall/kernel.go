package firewall

import (
	"context"
	"errors"
	"sync"

	"github.com/loden-net/loden/config/opt"
	"github.com/loden-net/loden/network/firewall/iptables"
	"github.com/loden-net/loden/network/firewall/netfilter"
	"github.com/loden-net/loden/network/firewall/nftables"
	"github.com/loden-net/loden/network/firewall/rule"
)

// kernel reads the rules of a daemon for the drivers. nf_tables are unchanged while their
// generation is the same, so a pass over an unchanged ruleset costs a short message per family and
// driver. It is used under the Firewall's lock.
type kernel struct {
	owner       rule.Owner
	states      [2]nftables.State
	prints      [2]iptables.Fingerprint
	judged      [2]judged
	printed     [2]uint32           // the generation of each fingerprint
	legacySave  [2]func() string    // the tool that lists iptables-legacy, found once
	chosen      [2]iptables.Variant // of iptables, once it was chosen
	legacyClean [2]bool             // iptables-legacy was read, and holds no rule of Loden or flannel
}

func newKernel(o rule.Owner) *kernel {
	k := &kernel{owner: o}
	for _, f := range opt.Families() {
		k.legacySave[f] = sync.OnceValue(func() string { return iptables.LegacySave(f) })
	}
	return k
}

// state returns the daemon's nftables table.
func (k *kernel) state(f opt.Family) (nftables.State, error) {
	generation, err := netfilter.Generation()
	if err == nil && generation == k.states[f].Generation {
		return k.states[f], nil
	}
	err = withConn(func(c *netfilter.Conn) error {
		k.states[f], err = nftables.Read(c, k.owner, f)
		return err
	})
	if err != nil {
		k.states[f] = nftables.State{}
	}
	return k.states[f], err
}

// fingerprint returns the fingerprint of a variant of iptables.
func (k *kernel) fingerprint(v iptables.Variant, f opt.Family) (iptables.Fingerprint, error) {
	if v == iptables.Legacy {
		return iptables.FingerprintLegacy(k.owner, f, k.legacySave[f])
	}
	generation, err := netfilter.Generation()
	if errors.Is(err, netfilter.ErrAbsent) {
		return iptables.Fingerprint{}, nil
	}
	if err == nil && generation == k.printed[f] {
		return k.prints[f], nil
	}
	// The generation was read before the rules: a change in between makes the next pass read again.
	p, err := iptables.FingerprintNFT(k.owner, f)
	k.prints[f], k.printed[f] = p, generation
	if err != nil {
		k.printed[f] = 0
	}
	return p, err
}

// watch watches the rules of both drivers: after a switch of the driver the rules of the other driver
// have to go.
func (k *kernel) watch(ctx context.Context, notify func()) error {
	return netfilter.Watch(ctx, func(table, chain string) bool {
		return nftables.Concerns(k.owner, table) || iptables.Concerns(k.owner, table, chain)
	}, notify)
}

// withConn runs fn with a netlink socket.
func withConn(fn func(*netfilter.Conn) error) error {
	c, err := netfilter.Dial()
	if err != nil {
		return err
	}
	defer c.Close()
	return fn(c)
}
