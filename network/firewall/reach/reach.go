// Package reach judges whether the packet filters of other programs let the forwarded packets of pods
// pass. A rule that accepts does not help against them: every base chain of nf_tables has its own verdict,
// and the verdict to drop is final. The package must not know drivers, and changes no rule.
//
// It follows a new connection from a pod of this node into the tunnel, and another out of the tunnel to a
// pod, through each base chain at the forward hook. Matches that it cannot judge (limits, marks of other
// programs, ports) count as unknown: a chain is reported only when it drops the packet also when every
// unknown match is false.
package reach

import (
	"fmt"
	"net/netip"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"

	"github.com/loden-net/loden/config/opt"
	"github.com/loden-net/loden/config/prefix"
	"github.com/loden-net/loden/config/set"
	"github.com/loden-net/loden/network/firewall/netfilter"
	"github.com/loden-net/loden/network/firewall/rule"
)

// Pods describes the packets that have to pass.
type Pods struct {
	Scope   rule.Scope
	Tunnel  string    // the interface of the tunnel
	Uplinks set.Names // interfaces that are no pod's
}

// Finding is a base chain that drops packets of the pods.
type Finding struct {
	Chain   netfilter.BaseChain
	Verdict string // "its policy drops" or "its rule 4 drops"
	Packets string // the packets that it drops: "from pods of this node to other nodes"
}

// rules gives the rules and sets of a base chain's table.
type rules interface {
	RulesOf(b netfilter.BaseChain, chain string) ([]netfilter.Rule, error)
	SetOf(b netfilter.BaseChain, set string) ([]nftables.SetElement, bool, error)
}

// Forwarded returns the base chains that drop forwarded packets of the pods.
func Forwarded(c *netfilter.Conn, f opt.Family, p Pods) ([]Finding, error) {
	chains, err := c.ForwardChains(f)
	if err != nil {
		return nil, err
	}
	var out []Finding
	for _, b := range chains {
		found, ok, err := judge(c, b, p)
		if err != nil {
			return out, err
		}
		if ok {
			out = append(out, found)
		}
	}
	return out, nil
}

// judge follows the packets of both directions through a base chain.
func judge(r rules, b netfilter.BaseChain, p Pods) (Finding, bool, error) {
	for _, packet := range p.packets() {
		w := walk{rules: r, base: b, packet: packet, pods: p}
		end, err := w.chain(b.Name, 0)
		if err != nil {
			return Finding{}, false, err
		}
		if w.doubt {
			continue
		}
		found := Finding{Chain: b, Packets: packet.about}
		switch {
		case end.verdict == dropped:
			found.Verdict = fmt.Sprintf("rule %d of its chain %s drops", end.rule, end.chain)
			return found, true, nil
		case end.verdict == undecided && b.Policy == 0: // NF_DROP
			found.Verdict = "its policy drops"
			return found, true, nil
		}
	}
	return Finding{}, false, nil
}

// packet is the first packet of a connection.
type packet struct {
	about    string
	in, out  string // interface names; the empty name stands for a pod's interface, whose name is unknown
	src, dst netip.Addr
}

// packets returns the packets that are followed.
func (p Pods) packets() [2]packet {
	own := p.Scope.Subnet.Addr().Next().Next()
	other := p.Scope.Network.Addr().Next().Next()
	if p.Scope.Subnet.Contains(other) {
		other = prefix.Last(p.Scope.Network)
	}
	return [2]packet{
		{about: "from pods of this node to pods of other nodes", out: p.Tunnel, src: own, dst: other},
		{about: "from pods of other nodes to pods of this node", in: p.Tunnel, src: other, dst: own},
	}
}

// verdict is the result of a chain.
type verdict int

const (
	undecided verdict = iota
	accepted
	dropped
)

// end tells where a walk ended.
type end struct {
	verdict verdict
	chain   string
	rule    int // from 1
}

// walk follows a packet through a base chain.
type walk struct {
	rules  rules
	base   netfilter.BaseChain
	packet packet
	pods   Pods
	doubt  bool // a rule that could not be judged may accept the packet
}

// deepest is how deep nf_tables nests jumps (NFT_JUMP_STACK_SIZE).
const deepest = 16

// chain follows the packet through a chain.
func (w *walk) chain(name string, depth int) (end, error) {
	if depth > deepest {
		return end{}, nil
	}
	list, err := w.rules.RulesOf(w.base, name)
	if err != nil {
		return end{}, err
	}
	for i, r := range list {
		m := &match{walk: w, registers: map[uint32]value{}}
		v, err := m.rule(r)
		if err != nil {
			return end{}, err
		}
		if m.state == no || v == nil {
			continue
		}
		if m.state == unknown {
			w.doubt = w.doubt || v.Kind != expr.VerdictDrop
			continue
		}
		switch v.Kind {
		case expr.VerdictAccept:
			return end{verdict: accepted}, nil
		case expr.VerdictDrop:
			return end{verdict: dropped, chain: name, rule: i + 1}, nil
		case expr.VerdictReturn:
			return end{}, nil
		case expr.VerdictJump, expr.VerdictGoto:
			inner, err := w.chain(v.Chain, depth+1)
			if err != nil || inner.verdict != undecided || v.Kind == expr.VerdictGoto {
				return inner, err
			}
		case expr.VerdictContinue, expr.VerdictBreak:
		default: // a queue: another program decides
			w.doubt = true
			return end{verdict: accepted}, nil
		}
	}
	return end{}, nil
}
