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

// remains finds what a back-end that is not in use left behind, ours or flannel's, and
// removes it. Looking starts no process. Flannel's rules go only where ours are to be
// instead: without a wish of our own they are none of our business.
type leftover struct {
	name   string
	find   func(f opt.Family, takeOver bool) (bool, error)
	remove func(ctx context.Context, f opt.Family, takeOver bool) error
}

// changes returns the removal of one family, if there is something to remove. It comes
// after the new rules are in place: for a moment both are, which masquerades once all the
// same.
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

// nftablesLeftover are our own table and flannel's.
func nftablesLeftover() leftover {
	return leftover{
		name: string(NFTables),
		find: func(f opt.Family, takeOver bool) (bool, error) {
			s, err := readNFTables(f)
			return s.Exists || s.Flannel && takeOver, err
		},
		remove: func(_ context.Context, f opt.Family, takeOver bool) error {
			return withConn(func(c *netfilter.Conn) error { return nftables.Remove(c, f, takeOver) })
		},
	}
}

// iptablesLeftover are rules in the variant of iptables that is not in use.
func iptablesLeftover(v iptables.Variant) leftover {
	return leftover{
		name: fmt.Sprintf("%s (%s)", IPTables, v),
		find: func(f opt.Family, takeOver bool) (bool, error) {
			look, err := fingerprintOf(v, f)
			return look.Ours || look.Flannel && takeOver, err
		},
		remove: func(ctx context.Context, f opt.Family, takeOver bool) error {
			if v == iptables.NFT {
				return withConn(func(c *netfilter.Conn) error { return iptables.RemoveNFT(c, f, takeOver) })
			}
			return removeLegacy(ctx, f, takeOver)
		},
	}
}

// removeLegacy needs the tool: the old packet filter takes tables as a whole only.
func removeLegacy(ctx context.Context, f opt.Family, takeOver bool) error {
	tool, err := iptables.Find(iptables.Of(f, iptables.Legacy))
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
