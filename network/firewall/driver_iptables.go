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
	"github.com/loden-net/loden/network/firewall/rule"
)

// iptablesDriver keeps the rules of both families in iptables. The tools of a family are looked for when
// they are first needed: an IPv4-only node needs no ip6tables.
type iptablesDriver struct {
	kernel  *kernel
	command [2]func() (iptables.Command, error) // by family, chosen once
	tools   [2]func() (*iptables.Tool, error)   // by family, found once

	// verified is the fingerprint of each family when its rules were last found in sync: as long as the
	// kernel looks the same, no tool is started.
	verified [2]fingerprint

	tallies [2]tally // of the guard, by family
}

// tally sums counts of refused packets that may start again from zero. Replaced rules take their counts
// over, except in ip6tables-nft (1.8.9), which ignores the counts in its input.
type tally struct{ last, lost Refused }

// total returns the sum up to the newest counts.
func (t *tally) total(now Refused) Refused {
	if now.In < t.last.In {
		t.lost.In += t.last.In
	}
	if now.Out < t.last.Out {
		t.lost.Out += t.last.Out
	}
	t.last = now
	return Refused{In: now.In + t.lost.In, Out: now.Out + t.lost.Out}
}

func newIPTables(k *kernel) *iptablesDriver {
	d := &iptablesDriver{kernel: k}
	for _, f := range opt.Families() {
		d.command[f] = sync.OnceValues(func() (iptables.Command, error) { return d.chooseCommand(f) })
		d.tools[f] = sync.OnceValues(func() (*iptables.Tool, error) {
			command, err := d.command[f]()
			if err != nil {
				return nil, err
			}
			return iptables.Find(k.owner, command)
		})
	}
	return d
}

// chooseCommand chooses the variant of a family by the rules that the host has.
func (d *iptablesDriver) chooseCommand(f opt.Family) (iptables.Command, error) {
	nft, err := d.kernel.fingerprint(iptables.NFT, f)
	if err != nil {
		return iptables.Command{}, err
	}
	legacy, err := d.kernel.fingerprint(iptables.Legacy, f)
	if err != nil {
		return iptables.Command{}, err
	}
	command := iptables.Choose(f, nft, legacy)
	d.kernel.chosen[f] = command.Variant
	return command, nil
}

// variant returns the variant that a family uses.
func (d *iptablesDriver) variant(f opt.Family) (iptables.Variant, error) {
	command, err := d.command[f]()
	return command.Variant, err
}

func (d *iptablesDriver) name() string {
	v, err := d.variant(opt.V4)
	if err != nil || v == "" {
		return string(IPTables)
	}
	return fmt.Sprintf("%s (%s)", IPTables, v)
}

// fingerprint reads the fingerprint of a family. It chooses no variant, and so starts no tool, where no
// rules are desired and the kernel holds none of Loden's.
func (d *iptablesDriver) fingerprint(f opt.Family, desired bool) (iptables.Fingerprint, error) {
	if !desired {
		nft, err1 := d.kernel.fingerprint(iptables.NFT, f)
		legacy, err2 := d.kernel.fingerprint(iptables.Legacy, f)
		if err := errors.Join(err1, err2); err != nil || !nft.Ours && !legacy.Ours && !legacy.Unknown {
			return iptables.Fingerprint{}, err
		}
	}
	v, err := d.variant(f)
	if err != nil {
		return iptables.Fingerprint{}, err
	}
	return d.kernel.fingerprint(v, f)
}

func (d *iptablesDriver) ready(f opt.Family) error {
	_, err := d.tools[f]()
	if errors.Is(err, exec.ErrNotFound) {
		return fmt.Errorf("%w: install %s with its -restore (some distributions pack ip6tables apart), or use --firewall nftables, or take %s out of the network document",
			err, iptables.Plain(f), f)
	}
	return err
}

func (d *iptablesDriver) randomFully(f opt.Family) bool {
	tool, err := d.tools[f]()
	return err == nil && tool.RandomFully()
}

func (d *iptablesDriver) changes(ctx context.Context, f opt.Family, want desired) ([]diff.Change, error) {
	seen, err := d.fingerprint(f, !want.empty())
	if err != nil {
		return nil, err
	}
	now := fingerprint{desired: want.sum(), kernel: seen.Text}
	if !seen.Unknown && (want.empty() && !seen.Ours || d.verified[f] == now) {
		return nil, nil
	}
	tool, err := d.tools[f]()
	if err != nil {
		return nil, err
	}
	snapshot, err := tool.List(ctx, seen.Places(want)...)
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

// compare finds the difference in a part and makes a single change of it, with a single restore.
func (d *iptablesDriver) compare(tool *iptables.Tool, s iptables.Snapshot, f opt.Family, part string, want desired) (diff.Change, bool) {
	o := observed{family: f, part: part, current: want.scope(part), inSync: true}
	var input string
	for _, p := range places(part) {
		h := s.Compare(p, want.at(p))
		o.inSync = o.inSync && h.InSync
		o.unreached = o.unreached || h.Unreached
		o.flannels = o.flannels || h.Flannels
		if !o.previous.Present() {
			o.previous = h.Scope
		}
		input += s.Edit(p, want.at(p))
	}
	return o.change(func(ctx context.Context) error {
		d.verified[f] = fingerprint{}
		if part == partGuard {
			d.tallies[f].total(Refused{In: s.Refused(rule.GuardIn), Out: s.Refused(rule.GuardOut)})
		}
		if err := tool.Restore(ctx, input); err != nil {
			return err
		}
		v, err := d.variant(f)
		if err != nil || !want.empty() || v != iptables.NFT {
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
	if err != nil {
		return 0, 0, err
	}
	sum := d.tallies[f].total(Refused{In: s.Refused(rule.GuardIn), Out: s.Refused(rule.GuardOut)})
	return sum.In, sum.Out, nil
}

func (d *iptablesDriver) watch(ctx context.Context, notify func()) error {
	return d.kernel.watch(ctx, notify)
}
