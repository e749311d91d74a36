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

// iptablesEngine is iptables, both families. The tools of a family are looked for when
// first needed: an IPv4-only node needs no ip6tables.
type iptablesEngine struct {
	commands [2]iptables.Command               // by family
	tools    [2]func() (*iptables.Tool, error) // by family, found once

	// verified is what was last found as wished, per family: as long as the kernel looks
	// the same no process is started.
	verified [2]print
}

// newIPTables looks at the host's rules to choose the variant of each family.
func newIPTables() (*iptablesEngine, error) {
	e := &iptablesEngine{}
	for _, f := range opt.Families() {
		nft, err := printOf(iptables.NFT, f)
		if err != nil {
			return nil, err
		}
		legacy, err := printOf(iptables.Legacy, f)
		if err != nil {
			return nil, err
		}
		command := iptables.Choose(f, nft, legacy)
		e.commands[f] = command
		e.tools[f] = sync.OnceValues(func() (*iptables.Tool, error) { return iptables.Find(command) })
	}
	return e, nil
}

// printOf looks at one variant's rules in the kernel.
func printOf(v iptables.Variant, f opt.Family) (iptables.Print, error) {
	if v == iptables.Legacy {
		return iptables.PrintLegacy(f)
	}
	c, err := netfilter.Dial()
	if err != nil {
		return iptables.Print{}, err
	}
	defer c.Close()
	return iptables.PrintNFT(c, f)
}

func (e *iptablesEngine) name() string {
	v4, v6 := e.commands[opt.V4].Variant, e.commands[opt.V6].Variant
	if v4 != v6 && v6 != "" {
		return fmt.Sprintf("%s (%s), ip6tables (%s)", IPTables, v4, v6)
	}
	return fmt.Sprintf("%s (%s)", IPTables, v4)
}

func (e *iptablesEngine) ready(f opt.Family) error {
	_, err := e.tools[f]()
	if errors.Is(err, exec.ErrNotFound) {
		return fmt.Errorf("%w: install iptables, or use --firewall nftables", err)
	}
	return err
}

func (e *iptablesEngine) randomFully(f opt.Family) bool {
	tool, err := e.tools[f]()
	return err == nil && tool.RandomFully()
}

func (e *iptablesEngine) changes(ctx context.Context, f opt.Family, w wish) ([]diff.Change, error) {
	look, err := printOf(e.commands[f].Variant, f)
	if err != nil {
		return nil, err
	}
	now := print{wish: w.sum(), state: look.Text}
	if w.empty() && !look.Ours || e.verified[f] == now {
		return nil, nil
	}
	tool, err := e.tools[f]()
	if err != nil {
		return nil, err
	}
	all := rule.Places()
	snapshot, err := tool.List(ctx, all[:]...)
	if err != nil {
		return nil, err
	}
	var changes []diff.Change
	for _, part := range []string{partMasq, partGuard} {
		if c, ok := e.compare(tool, snapshot, f, part, w); ok {
			changes = append(changes, c)
		}
	}
	if len(changes) == 0 {
		e.verified[f] = now
	}
	return changes, nil
}

// compare finds what differs in one part and makes it one change: one restore.
func (e *iptablesEngine) compare(tool *iptables.Tool, s iptables.Snapshot, f opt.Family, part string, w wish) (diff.Change, bool) {
	found := found{family: f, part: part, current: w.currentScope(part), right: true}
	var input string
	for _, p := range places(part) {
		h := s.Look(p, w[p])
		found.right = found.right && h.Right
		found.foreign = found.foreign || h.Foreign
		if !found.previous.Present() {
			found.previous = h.Scope
		}
		input += s.Edit(p, w[p])
	}
	return found.change(func(ctx context.Context) error {
		e.verified[f] = print{}
		if err := tool.Restore(ctx, input); err != nil {
			return err
		}
		if !w.empty() || e.commands[f].Variant != iptables.NFT {
			return nil
		}
		return withConn(func(c *netfilter.Conn) error { return iptables.TidyNFT(c, f) })
	})
}

func (e *iptablesEngine) refused(ctx context.Context, f opt.Family) (in, out uint64, err error) {
	tool, err := e.tools[f]()
	if err != nil {
		return 0, 0, err
	}
	s, err := tool.List(ctx, rule.GuardIn, rule.GuardOut)
	return s.Refused(rule.GuardIn), s.Refused(rule.GuardOut), err
}

func (e *iptablesEngine) held(ctx context.Context, f opt.Family, p rule.Place) (opt.Option[Scope], error) {
	look, err := printOf(e.commands[f].Variant, f)
	if err != nil || !look.Ours {
		return opt.None[Scope](), err
	}
	tool, err := e.tools[f]()
	if err != nil {
		return opt.None[Scope](), err
	}
	s, err := tool.List(ctx, p)
	return s.Look(p, opt.None[rule.List]()).Scope, err
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
