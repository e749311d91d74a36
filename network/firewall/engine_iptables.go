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
	"github.com/loden-net/loden/network/firewall/rule"
)

// iptablesEngine is iptables in one variant, both families. The tools of a family are
// looked for when first needed: an IPv4-only node needs no ip6tables.
type iptablesEngine struct {
	variant iptables.Variant
	tools   [2]func() (*iptables.Tool, error) // by family, found once
}

func newIPTables(v iptables.Variant) *iptablesEngine {
	e := &iptablesEngine{variant: v}
	for _, f := range opt.Families() {
		e.tools[f] = sync.OnceValues(func() (*iptables.Tool, error) { return iptables.Find(f, v) })
	}
	return e
}

func (e *iptablesEngine) name() string {
	if e.variant == iptables.Default {
		return "iptables"
	}
	return fmt.Sprintf("iptables (%s)", e.variant)
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
	tool, err := e.tools[f]()
	if err != nil {
		if w.empty() && errors.Is(err, exec.ErrNotFound) {
			return nil, nil
		}
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
	return found.change(func(ctx context.Context) error { return tool.Restore(ctx, input) })
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
	tool, err := e.tools[f]()
	if err != nil {
		return opt.None[Scope](), nil // what no tool wrote is not there
	}
	s, err := tool.List(ctx, p)
	return s.Look(p, opt.None[rule.List]()).Scope, err
}
