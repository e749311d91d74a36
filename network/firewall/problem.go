package firewall

import (
	"cmp"
	"context"
	"errors"
	"fmt"

	"github.com/loden-net/loden/config/opt"
	"github.com/loden-net/loden/network/firewall/iptables"
	"github.com/loden-net/loden/network/firewall/netfilter"
	"github.com/loden-net/loden/network/firewall/reach"
)

// Problem is a rule of another program that takes the effect from the rules of Loden: they are present,
// and the packets of pods are dropped all the same.
type Problem struct {
	Object string // the other program's rule
	Reason string // the consequence, and the command that mends it
}

// Problems returns the base chains of other programs, in nf_tables and in iptables-legacy, that drop the
// forwarded packets of the pods of want or the handshakes at want.Listen. It changes no rule. It starts a
// process where iptables-legacy has tables; of nf_tables, while they and want are unchanged, it costs a
// message per family. It may be called before the changes to want have run.
func (f *Firewall) Problems(_ context.Context, want Config) ([]Problem, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.kernel == nil { // over a Fake
		return f.chosen.(fakeDriver).problemsOf()
	}
	var out []Problem
	var errs []error
	for _, family := range opt.Families() {
		traffic := want.traffic(family, f.kernel.owner.Tunnel())
		if traffic == (reach.Traffic{}) {
			continue
		}
		at := judgement{family: family, traffic: traffic, opened: want.Forward.Of(family).Present()}
		problems, err := f.kernel.problemsOfNFT(at)
		out, errs = append(out, problems...), append(errs, err)
		problems, err = f.kernel.problemsOfLegacy(at)
		out, errs = append(out, problems...), append(errs, err)
	}
	return out, errors.Join(errs...)
}

// traffic describes the packets of a family that have to pass.
func (c Config) traffic(f opt.Family, tunnel string) reach.Traffic {
	t := reach.Traffic{Handshakes: c.Listen.Of(f)}
	p := reach.Pods{Tunnel: cmp.Or(c.Guard.Tunnel, tunnel), Uplinks: c.Guard.Uplinks}
	scopes := []opt.Option[Scope]{c.Forward.Of(f), c.Guard.Scopes.Of(f)}
	if m, ok := c.Masq.Of(f).Get(); ok {
		scopes = append(scopes, opt.Some(m.Scope))
	}
	for _, scope := range scopes {
		if s, ok := scope.Get(); ok {
			p.Scope = s
			t.Pods = opt.Some(p)
			break
		}
	}
	return t
}

// judgement is what a family is judged by. It is comparable with ==.
type judgement struct {
	family  opt.Family
	traffic reach.Traffic
	opened  bool // the driver accepts forwarded packets of the pods in its own chains
}

// judged is the result of the last judgement of a family's nf_tables.
type judged struct {
	generation uint32 // of nf_tables, when the judgement was made
	by         judgement
	problems   []Problem
}

// opens reports whether the driver puts its own jump before every rule that drops in a chain of a variant
// of iptables, and keeps it there: in FORWARD of the variant that it uses.
func (k *kernel) opens(by judgement, v iptables.Variant, b netfilter.BaseChain) bool {
	return by.opened && k.chosen[by.family] == v && b.Family != "inet" && b.Table == "filter" && b.Name == "FORWARD"
}

// problemsOfNFT judges the base chains of nf_tables, unless they are unchanged.
func (k *kernel) problemsOfNFT(by judgement) ([]Problem, error) {
	last := k.judged[by.family]
	generation, err := netfilter.Generation()
	if errors.Is(err, netfilter.ErrAbsent) {
		return nil, nil
	}
	if err == nil && last.generation == generation && last.by == by {
		return last.problems, nil
	}
	var found []reach.Finding
	err = withConn(func(c *netfilter.Conn) error {
		generation, err = c.Consistent(func() error {
			chains, err := c.FilterChains(by.family)
			if err != nil {
				return err
			}
			found, err = reach.Judge(c, chains, by.traffic)
			return err
		})
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("judge %s packet filters of other programs: %w", by.family, err)
	}
	problems := k.describe(by, iptables.NFT, found)
	k.judged[by.family] = judged{generation: generation, by: by, problems: problems}
	return problems, nil
}

// problemsOfLegacy judges the chains of iptables-legacy. The kernel does not announce their changes.
func (k *kernel) problemsOfLegacy(by judgement) ([]Problem, error) {
	saved, err := iptables.ListLegacy(by.family, k.legacySave[by.family])
	if err != nil {
		return nil, err
	}
	found, err := reach.Judge(saved, saved.BaseChains(), by.traffic)
	return k.describe(by, iptables.Legacy, found), err
}

// describe makes Problems of the findings in nf_tables, or in iptables-legacy.
func (k *kernel) describe(by judgement, v iptables.Variant, found []reach.Finding) []Problem {
	problems := make([]Problem, 0, len(found))
	for _, f := range found {
		if f.Kind == reach.Forwarded && k.opens(by, v, f.Chain) {
			continue
		}
		r := remedy{Finding: f, judgement: by, variant: v}
		problems = append(problems, Problem{
			Object: r.object(),
			Reason: fmt.Sprintf("%s every %s, and no rule in another table can overrule it: %s: %s", f.Verdict, f.Packets, r.purpose(), r.commands()),
		})
	}
	return problems
}
