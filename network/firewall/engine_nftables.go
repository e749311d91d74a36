package firewall

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"sync"

	"github.com/loden-net/loden/config/diff"
	"github.com/loden-net/loden/config/opt"
	"github.com/loden-net/loden/network/firewall/netfilter"
	"github.com/loden-net/loden/network/firewall/nftables"
	"github.com/loden-net/loden/network/firewall/rule"
)

// nftEngine is nftables, both families. Everything is listed over netlink; nft runs only
// to change something.
type nftEngine struct {
	tool func() (*nftables.Tool, error) // found once

	// verified is what was last found as wished, per family. A rule's comment stands for
	// the rule; that its content is still the same, only a second look can tell.
	verified [2]print
}

// print is how a family looked when it was as wished.
type print struct{ wish, state string }

func newNFTables() *nftEngine {
	return &nftEngine{tool: sync.OnceValues(nftables.Find)}
}

func (*nftEngine) name() string { return string(NFTables) }

func (*nftEngine) randomFully(opt.Family) bool { return true } // since Linux 3.18, like nft itself

func (e *nftEngine) ready(opt.Family) error {
	_, err := e.tool()
	if errors.Is(err, exec.ErrNotFound) {
		return fmt.Errorf("%w: install nftables, or use --firewall iptables", err)
	}
	return err
}

func (e *nftEngine) changes(_ context.Context, f opt.Family, w wish) ([]diff.Change, error) {
	s, err := readNFTables(f)
	if err != nil {
		return nil, err
	}
	now := print{wish: w.sum(), state: s.Print()}
	tampered := e.verified[f].wish == now.wish && e.verified[f].state != now.state
	var changes []diff.Change
	for _, part := range []string{partMasq, partGuard} {
		found := found{family: f, part: part, current: w.currentScope(part), right: true}
		for _, p := range places(part) {
			h := s.Look(p, w[p])
			found.right = found.right && h.Right && (!tampered || !w[p].Present())
			if !found.previous.Present() {
				found.previous = h.Scope
			}
		}
		if part == partMasq && s.Flannel && !w.empty() {
			found.right, found.foreign = false, true
		}
		c, ok := found.change(func(ctx context.Context) error { return e.apply(ctx, f, part, w) })
		if ok {
			changes = append(changes, c)
		}
	}
	if len(changes) == 0 {
		e.verified[f] = now
	}
	return changes, nil
}

// apply makes one part as wished. It looks again first: what was compared may be old.
func (e *nftEngine) apply(ctx context.Context, f opt.Family, part string, w wish) error {
	e.verified[f] = print{}
	s, err := readNFTables(f)
	if err != nil {
		return err
	}
	wished := nftables.Wish{}
	for _, p := range places(part) {
		wished[p] = w[p]
	}
	tool, err := e.tool()
	if err != nil {
		return err
	}
	s.Flannel = s.Flannel && part == partMasq && !w.empty()
	return tool.Apply(ctx, s, wished)
}

func (e *nftEngine) refused(_ context.Context, f opt.Family) (in, out uint64, err error) {
	err = withConn(func(c *netfilter.Conn) error {
		in, out, err = nftables.Refused(c, f)
		return err
	})
	return in, out, err
}

func (e *nftEngine) held(_ context.Context, f opt.Family, p rule.Place) (opt.Option[Scope], error) {
	s, err := readNFTables(f)
	return s.Look(p, opt.None[rule.List]()).Scope, err
}

func readNFTables(f opt.Family) (s nftables.State, err error) {
	err = withConn(func(c *netfilter.Conn) error {
		s, err = nftables.Read(c, f)
		return err
	})
	return s, err
}

// sum stands for a wish: equal wishes have equal sums.
func (w wish) sum() string {
	var text string
	for p, l := range w {
		if list, ok := l.Get(); ok {
			text += fmt.Sprint(p, list.Sum(), " ")
		}
	}
	return text
}
