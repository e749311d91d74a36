package nftables

import (
	"context"
	"fmt"

	"sigs.k8s.io/knftables"

	"github.com/loden-net/loden/config/opt"
	"github.com/loden-net/loden/network/firewall/rule"
)

// Tool runs nft. It keeps no file open; it is safe for concurrent use.
type Tool struct{ nft knftables.Interface }

// Find looks for nft and asks its version: errors.Is(err, exec.ErrNotFound) tells that it
// is not installed. It may start three processes.
func Find() (*Tool, error) {
	nft, err := knftables.New("", "", knftables.NoObjectCommentEmulation)
	if err != nil {
		return nil, fmt.Errorf("find nft: %w", err)
	}
	return &Tool{nft: nft}, nil
}

// Desired is the desired rule lists of some places; a place that is not named stays as it is.
type Desired map[rule.Place]opt.Option[rule.List]

// Apply makes the places as desired in one transaction, and removes the replaced tables and flannel's in
// the same transaction. The state must have been read just before: if the table changed meanwhile, nft
// applies no change and reports an error.
func (t *Tool) Apply(ctx context.Context, s State, d Desired, replaced []string) error {
	tx := t.nft.NewTransaction()
	family := knftables.IPv4Family
	if s.Family == opt.V6 {
		family = knftables.IPv6Family
	}
	e := editor{tx: tx, family: family, state: s}
	e.apply(d, replaced)
	if tx.NumOperations() == 0 {
		return nil
	}
	if err := t.nft.Run(ctx, tx); err != nil {
		return fmt.Errorf("change %s nftables rules: %w", s.Family, err)
	}
	return nil
}

// editor writes a transaction.
type editor struct {
	tx     *knftables.Transaction
	family knftables.Family
	state  State
}

func (e editor) apply(d Desired, replaced []string) {
	wanted := false
	for _, l := range d {
		wanted = wanted || l.Present()
	}
	if e.state.dormant && wanted { // its chains are not called; knftables cannot wake it
		e.tx.Delete(e.table())
		e.state = State{Owner: e.state.Owner, Family: e.state.Family, Flannel: e.state.Flannel, others: e.state.others}
	}
	if wanted {
		e.tx.Add(e.table())
	}
	for _, p := range rule.Places() {
		want, named := d[p]
		if !named {
			continue
		}
		if list, ok := want.Get(); ok {
			e.write(slotOf(p), list)
		} else {
			e.remove(slotOf(p))
		}
	}
	if e.state.Exists && !wanted && e.emptyWithout(d) {
		e.tx.Delete(e.table())
	}
	for _, name := range replaced {
		e.tx.Delete(&knftables.Table{Family: e.family, Name: name})
	}
	if e.state.Flannel {
		e.tx.Delete(&knftables.Table{Family: e.family, Name: FlannelTable(e.state.Family)})
	}
}

// emptyWithout reports whether the table holds no place but the named places.
func (e editor) emptyWithout(d Desired) bool {
	for _, p := range rule.Places() {
		if _, named := d[p]; named {
			continue
		}
		if e.state.Compare(p, opt.None[rule.List]()).Ours {
			return false
		}
	}
	return true
}

// write fills new chains, moves the jump to them and deletes the old chains.
func (e editor) write(at slot, list rule.List) {
	if at.counter != "" {
		e.tx.Add(&knftables.Counter{Family: e.family, Table: e.state.Owner.Table(), Name: at.counter})
	}
	anchor, ok := e.state.chains[at.anchor]
	if ok && !at.fits(anchor.Chain) {
		e.flush(at.anchor)
		e.delete(at.anchor)
	}
	e.tx.Add(e.anchor(at))
	chains := at.chainsOf(e.state.Family, list)
	for _, c := range chains {
		if c.name != at.anchor {
			e.tx.Add(e.chain(c.name))
		}
		e.flush(c.name)
		for _, r := range c.rules {
			e.tx.Add(&knftables.Rule{Family: e.family, Table: e.state.Owner.Table(), Chain: c.name, Rule: r.body, Comment: knftables.PtrTo(r.comment)})
		}
	}
	e.drop(e.state.stale(at, chains))
}

// remove deletes the chains and the counter of a place.
func (e editor) remove(at slot) {
	names := e.state.stale(at, nil)
	if _, ok := e.state.chains[at.anchor]; ok {
		names = append(names, at.anchor)
	}
	e.drop(names)
	if at.counter != "" && len(names) > 0 {
		// Added first, it need not be there to be deleted.
		e.tx.Add(&knftables.Counter{Family: e.family, Table: e.state.Owner.Table(), Name: at.counter})
		e.tx.Delete(&knftables.Counter{Family: e.family, Table: e.state.Owner.Table(), Name: at.counter})
	}
}

// drop empties the chains, which refer to each other, and then deletes them.
func (e editor) drop(names []string) {
	for _, name := range names {
		e.flush(name)
	}
	for _, name := range names {
		e.delete(name)
	}
}

func (e editor) table() *knftables.Table {
	return &knftables.Table{Family: e.family, Name: e.state.Owner.Table()}
}

func (e editor) chain(name string) *knftables.Chain {
	return &knftables.Chain{Family: e.family, Table: e.state.Owner.Table(), Name: name}
}

func (e editor) anchor(at slot) *knftables.Chain {
	c := e.chain(at.anchor)
	c.Type = knftables.PtrTo(knftables.BaseChainType(at.kind))
	c.Hook = knftables.PtrTo(knftables.BaseChainHook(at.point))
	c.Priority = knftables.PtrTo(knftables.BaseChainPriority(fmt.Sprint(at.priority)))
	c.Policy = knftables.PtrTo(knftables.AcceptPolicy)
	return c
}

func (e editor) flush(name string) { e.tx.Flush(e.chain(name)) }

func (e editor) delete(name string) { e.tx.Delete(e.chain(name)) }
