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
	command [2]func() (iptables.Command, error) // by family, chosen once
	tools   [2]func() (*iptables.Tool, error)   // by family, found once

	// verified is what was last found as wished, per family: as long as the kernel looks
	// the same no process is started.
	verified [2]print
}

func newIPTables() *iptablesEngine {
	e := &iptablesEngine{}
	for _, f := range opt.Families() {
		e.command[f] = sync.OnceValues(func() (iptables.Command, error) { return chooseCommand(f) })
		e.tools[f] = sync.OnceValues(func() (*iptables.Tool, error) {
			command, err := e.command[f]()
			if err != nil {
				return nil, err
			}
			return iptables.Find(command)
		})
	}
	return e
}

// chooseCommand looks at the host's rules to choose the variant of one family.
func chooseCommand(f opt.Family) (iptables.Command, error) {
	nft, err := printOf(iptables.NFT, f)
	if err != nil {
		return iptables.Command{}, err
	}
	legacy, err := printOf(iptables.Legacy, f)
	if err != nil {
		return iptables.Command{}, err
	}
	return iptables.Choose(f, nft, legacy), nil
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
	command, err := e.command[opt.V4]()
	if err != nil || command.Variant == "" {
		return string(IPTables)
	}
	return fmt.Sprintf("%s (%s)", IPTables, command.Variant)
}

// look finds how a family's rules look, without a process unless something of ours may be
// there or is wished.
func (e *iptablesEngine) look(f opt.Family, wished bool) (iptables.Print, error) {
	if !wished {
		nft, err1 := printOf(iptables.NFT, f)
		legacy, err2 := printOf(iptables.Legacy, f)
		if err := errors.Join(err1, err2); err != nil || !nft.Ours && !legacy.Ours {
			return iptables.Print{}, err
		}
	}
	command, err := e.command[f]()
	if err != nil {
		return iptables.Print{}, err
	}
	return printOf(command.Variant, f)
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
	look, err := e.look(f, !w.empty())
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
	snapshot, err := tool.List(ctx, look.Places()...)
	if err != nil {
		return nil, err
	}
	snapshot.TakeOver = !w.empty()
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
		command, err := e.command[f]()
		if err != nil || !w.empty() || command.Variant != iptables.NFT {
			return err
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
	look, err := e.look(f, false)
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
