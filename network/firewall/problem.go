package firewall

import (
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

// Problems returns the base chains of other programs in nf_tables that drop the forwarded packets of the
// pods of want. It changes no rule and starts no process; while nf_tables and want are unchanged it costs
// a message per family. It may be called before the changes to want have run.
func (f *Firewall) Problems(_ context.Context, want Config) ([]Problem, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.kernel == nil { // over a Fake
		return f.chosen.(fakeDriver).problemsOf()
	}
	var out []Problem
	var errs []error
	for _, family := range opt.Families() {
		pods, ok := want.pods(family)
		if !ok {
			continue
		}
		problems, err := f.kernel.problems(family, pods, want.Forward.Of(family).Present())
		out = append(out, problems...)
		errs = append(errs, err)
	}
	return out, errors.Join(errs...)
}

// pods describes the packets of a family that have to be forwarded.
func (c Config) pods(f opt.Family) (reach.Pods, bool) {
	p := reach.Pods{Tunnel: c.Guard.Tunnel, Uplinks: c.Guard.Uplinks}
	for _, scope := range []opt.Option[Scope]{c.Forward.Of(f), c.Guard.Scopes.Of(f)} {
		if s, ok := scope.Get(); ok {
			p.Scope = s
			return p, true
		}
	}
	if m, ok := c.Masq.Of(f).Get(); ok {
		p.Scope = m.Scope
		return p, true
	}
	return p, false
}

// judged is the result of the last judgement of a family.
type judged struct {
	generation uint32 // of nf_tables, when the judgement was made
	pods       reach.Pods
	opened     bool
	problems   []Problem
}

// opens reports whether the driver puts its own jump before every rule that drops in a chain, and keeps
// it there: iptables-nft in FORWARD.
func (k *kernel) opens(f opt.Family, b netfilter.BaseChain) bool {
	return k.chosen[f] == iptables.NFT && b.Family != "inet" && b.Table == "filter" && b.Name == "FORWARD"
}

// problems judges the base chains of a family, unless they are unchanged. opened says that the driver
// accepts forwarded packets of the pods in its own chains.
func (k *kernel) problems(f opt.Family, pods reach.Pods, opened bool) ([]Problem, error) {
	if pods.Tunnel == "" { // no guard is desired
		pods.Tunnel = k.owner.Tunnel()
	}
	last := k.judged[f]
	generation, err := netfilter.Generation()
	if errors.Is(err, netfilter.ErrAbsent) {
		return nil, nil
	}
	if err == nil && last.generation == generation && last.pods == pods && last.opened == opened {
		return last.problems, nil
	}
	var found []reach.Finding
	err = withConn(func(c *netfilter.Conn) error {
		generation, err = c.Consistent(func() error {
			found, err = reach.Forwarded(c, f, pods)
			return err
		})
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("judge %s packet filters of other programs: %w", f, err)
	}
	problems := make([]Problem, 0, len(found))
	for _, finding := range found {
		if opened && k.opens(f, finding.Chain) {
			continue
		}
		problems = append(problems, problemOf(finding, pods))
	}
	k.judged[f] = judged{generation: generation, pods: pods, opened: opened, problems: problems}
	return problems, nil
}

// problemOf describes a finding for the operator.
func problemOf(f reach.Finding, pods reach.Pods) Problem {
	ip := "ip"
	if f.Chain.Family == "ip6" || pods.Scope.Family() == opt.V6 {
		ip = "ip6"
	}
	accept := func(direction string) string {
		return fmt.Sprintf("nft insert rule %s %s %s %s %s %s accept", f.Chain.Family, f.Chain.Table, f.Chain.Name, ip, direction, pods.Scope.Network)
	}
	mend := accept("saddr") + " && " + accept("daddr")
	if f.Chain.Table == "firewalld" {
		mend += fmt.Sprintf(" (and, to keep it: firewall-cmd --permanent --zone=trusted --add-source=%s && firewall-cmd --reload)", pods.Scope.Network)
	}
	return Problem{
		Object: fmt.Sprintf("nft chain %s %s %s", f.Chain.Family, f.Chain.Table, f.Chain.Name),
		Reason: fmt.Sprintf("%s every new connection %s, and no rule in another table can overrule it: accept the pods' packets there: %s", f.Verdict, f.Packets, mend),
	}
}
