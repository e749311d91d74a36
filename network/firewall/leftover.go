package firewall

import (
	"context"
	"errors"
	"fmt"

	"github.com/loden-net/loden/config/diff"
	"github.com/loden-net/loden/config/opt"
	"github.com/loden-net/loden/network/firewall/iptables"
	"github.com/loden-net/loden/network/firewall/netfilter"
	"github.com/loden-net/loden/network/firewall/nftables"
	"github.com/loden-net/loden/network/firewall/rule"
)

// leftover finds rules that an earlier run kept by a driver that is not in use, and flannel's rules
// there, and removes them. Flannel's rules go only where Loden's are to be instead: a node that desires
// no rules leaves flannel alone.
type leftover struct {
	name   string
	find   func(f opt.Family, takeOver bool) (bool, error)
	remove func(ctx context.Context, f opt.Family, takeOver bool) error
}

// changes returns the removal for one family, if there are rules to remove. It comes after the new rules
// are in place: while both sets are there, a packet is masqueraded once all the same.
func (l leftover) changes(f opt.Family, takeOver bool) ([]diff.Change, error) {
	found, err := l.find(f, takeOver)
	if err != nil || !found {
		return nil, err
	}
	return []diff.Change{{
		Part: partMasq, Verb: verbDelete, Object: fmt.Sprintf("%s, left in %s", f, l.name),
		Run: func(ctx context.Context) error { return l.remove(ctx, f, takeOver) },
	}}, nil
}

// nftablesLeftover finds the daemon's nftables table, and flannel's.
func nftablesLeftover(k *kernel) leftover {
	return leftover{
		name: string(NFTables),
		find: func(f opt.Family, takeOver bool) (bool, error) {
			s, err := k.state(f)
			return s.Exists || s.Flannel && takeOver, err
		},
		remove: func(_ context.Context, f opt.Family, takeOver bool) error {
			return withConn(func(c *netfilter.Conn) error { return nftables.Remove(c, k.owner, f, takeOver) })
		},
	}
}

// iptablesLeftover finds rules in a variant of iptables. inUse tells the variant that a family uses; the
// rules in that variant are no leftovers. The kernel does not announce changes of iptables-legacy, and to
// list its rules costs a process: once they were seen to be clean they are not listed again.
func iptablesLeftover(k *kernel, v iptables.Variant, inUse func(opt.Family) (iptables.Variant, error)) leftover {
	return leftover{
		name: fmt.Sprintf("%s (%s)", IPTables, v),
		find: func(f opt.Family, takeOver bool) (bool, error) {
			if v == iptables.Legacy && k.legacyClean[f] || k.chosen[f] == v {
				return false, nil
			}
			p, err := k.fingerprint(v, f)
			if err != nil || !p.Ours && (!p.Flannel || !takeOver) {
				k.legacyClean[f] = v == iptables.Legacy && err == nil && !p.Ours && !p.Flannel
				return false, err
			}
			used, err := inUse(f) // asked last: the answer may start a tool
			return used != v, err
		},
		remove: func(ctx context.Context, f opt.Family, takeOver bool) error {
			if v == iptables.NFT {
				return withConn(func(c *netfilter.Conn) error { return iptables.RemoveNFT(c, k.owner, f, takeOver) })
			}
			return removeLegacy(ctx, k.owner, f, takeOver)
		},
	}
}

// removeLegacy needs the tool: the old packet filter takes tables as a whole only.
func removeLegacy(ctx context.Context, o rule.Owner, f opt.Family, takeOver bool) error {
	tool, err := iptables.Find(o, iptables.Of(f, iptables.Legacy))
	if err != nil {
		return fmt.Errorf("%w: install iptables to remove old rules, or restart the machine", err)
	}
	all := rule.Places()
	s, err := tool.List(ctx, all[:]...)
	if err != nil {
		return err
	}
	s.TakeOver = takeOver
	var errs []error
	for _, p := range all {
		if input := s.Edit(p, opt.None[rule.List]()); input != "" {
			errs = append(errs, tool.Restore(ctx, input))
		}
	}
	return errors.Join(errs...)
}
