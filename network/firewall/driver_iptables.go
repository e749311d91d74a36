package firewall

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"sync"

	"github.com/loden-net/loden/config/diff"
	"github.com/loden-net/loden/config/opt"
	"github.com/loden-net/loden/network/firewall/iptables"
	"github.com/loden-net/loden/network/firewall/netfilter"
	"github.com/loden-net/loden/network/firewall/nftables"
	"github.com/loden-net/loden/network/firewall/rule"
)

// iptablesDriver is iptables, both families. The tools of a family are looked for when
// first needed: an IPv4-only node needs no ip6tables.
type iptablesDriver struct {
	command [2]func() (iptables.Command, error) // by family, chosen once
	tools   [2]func() (*iptables.Tool, error)   // by family, found once

	// verified is what was last found as wished, per family: as long as the kernel looks
	// the same no process is started.
	verified [2]fingerprint
}

func newIPTables() *iptablesDriver {
	d := &iptablesDriver{}
	for _, f := range opt.Families() {
		d.command[f] = sync.OnceValues(func() (iptables.Command, error) { return chooseCommand(f) })
		d.tools[f] = sync.OnceValues(func() (*iptables.Tool, error) {
			command, err := d.command[f]()
			if err != nil {
				return nil, err
			}
			return iptables.Find(command)
		})
	}
	return d
}

// chooseCommand looks at the host's rules to choose the variant of one family.
func chooseCommand(f opt.Family) (iptables.Command, error) {
	nft, err := fingerprintOf(iptables.NFT, f)
	if err != nil {
		return iptables.Command{}, err
	}
	legacy, err := fingerprintOf(iptables.Legacy, f)
	if err != nil {
		return iptables.Command{}, err
	}
	return iptables.Choose(f, nft, legacy), nil
}

// fingerprintOf looks at one variant's rules in the kernel.
func fingerprintOf(v iptables.Variant, f opt.Family) (iptables.Fingerprint, error) {
	if v == iptables.Legacy {
		return iptables.FingerprintLegacy(f)
	}
	c, err := netfilter.Dial()
	if err != nil {
		return iptables.Fingerprint{}, err
	}
	defer c.Close()
	return iptables.FingerprintNFT(c, f)
}

func (d *iptablesDriver) name() string {
	command, err := d.command[opt.V4]()
	if err != nil || command.Variant == "" {
		return string(IPTables)
	}
	return fmt.Sprintf("%s (%s)", IPTables, command.Variant)
}

// look finds how a family's rules look, without a process unless something of ours may be
// there or is wished.
func (d *iptablesDriver) look(f opt.Family, wished bool) (iptables.Fingerprint, error) {
	if !wished {
		nft, err1 := fingerprintOf(iptables.NFT, f)
		legacy, err2 := fingerprintOf(iptables.Legacy, f)
		if err := errors.Join(err1, err2); err != nil || !nft.Ours && !legacy.Ours {
			return iptables.Fingerprint{}, err
		}
	}
	command, err := d.command[f]()
	if err != nil {
		return iptables.Fingerprint{}, err
	}
	return fingerprintOf(command.Variant, f)
}

func (d *iptablesDriver) ready(f opt.Family) error {
	_, err := d.tools[f]()
	if errors.Is(err, exec.ErrNotFound) {
		return fmt.Errorf("%w: install iptables, or use --firewall nftables", err)
	}
	return err
}

func (d *iptablesDriver) randomFully(f opt.Family) bool {
	tool, err := d.tools[f]()
	return err == nil && tool.RandomFully()
}

func (d *iptablesDriver) changes(ctx context.Context, f opt.Family, want desired) ([]diff.Change, error) {
	look, err := d.look(f, !want.empty())
	if err != nil {
		return nil, err
	}
	now := fingerprint{desired: want.sum(), kernel: look.Text}
	if want.empty() && !look.Ours || d.verified[f] == now {
		return nil, nil
	}
	tool, err := d.tools[f]()
	if err != nil {
		return nil, err
	}
	snapshot, err := tool.List(ctx, look.Places()...)
	if err != nil {
		return nil, err
	}
	snapshot.TakeOver = !want.empty()
	var changes []diff.Change
	for _, part := range parts() {
		if c, ok := d.compare(tool, snapshot, f, part, want); ok {
			changes = append(changes, c)
		}
	}
	if len(changes) == 0 {
		d.verified[f] = now
	}
	return changes, nil
}

// compare finds what differs in one part and makes it one change: one restore.
func (d *iptablesDriver) compare(tool *iptables.Tool, s iptables.Snapshot, f opt.Family, part string, want desired) (diff.Change, bool) {
	o := observed{family: f, part: part, current: want.scope(part), inSync: true}
	var input string
	for _, p := range places(part) {
		h := s.Compare(p, want.at(p))
		o.inSync = o.inSync && h.InSync
		o.flannels = o.flannels || h.Flannels
		if !o.previous.Present() {
			o.previous = h.Scope
		}
		input += s.Edit(p, want.at(p))
	}
	return o.change(func(ctx context.Context) error {
		d.verified[f] = fingerprint{}
		if err := tool.Restore(ctx, input); err != nil {
			return err
		}
		command, err := d.command[f]()
		if err != nil || !want.empty() || command.Variant != iptables.NFT {
			return err
		}
		return withConn(func(c *netfilter.Conn) error { return iptables.TidyNFT(c, f) })
	})
}

func (d *iptablesDriver) refused(ctx context.Context, f opt.Family) (in, out uint64, err error) {
	tool, err := d.tools[f]()
	if err != nil {
		return 0, 0, err
	}
	s, err := tool.List(ctx, rule.GuardIn, rule.GuardOut)
	return s.Refused(rule.GuardIn), s.Refused(rule.GuardOut), err
}

func (d *iptablesDriver) watch(ctx context.Context, notify func()) error {
	return watchKernel(ctx, notify)
}

// watchKernel watches the rules of both drivers: after a switch of the driver the rules of the other
// driver have to go.
func watchKernel(ctx context.Context, notify func()) error {
	return netfilter.Watch(ctx, func(table, chain string) bool {
		return nftables.Concerns(table) || iptables.Concerns(table, chain)
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
