// Package reach judges whether the packet filters of other programs let the packets of the overlay pass:
// the packets of pods, which the node forwards, and the handshakes of WireGuard. A rule that accepts does
// not help against them: every base chain of nf_tables has its own verdict, the tables of iptables-legacy
// have theirs, and the verdict to drop is final. The package must not know drivers, and changes no rule.
//
// It follows the first packet of a connection through each base chain on the packet's way. Matches that
// it cannot judge (limits, marks of other programs, the ports of pods) count as unknown: a chain is
// reported only when it drops the packet also when every unknown match is false.
package reach

import (
	"fmt"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"

	"github.com/loden-net/loden/network/firewall/netfilter"
)

// Finding is a base chain that drops packets of the overlay.
type Finding struct {
	Chain   netfilter.BaseChain
	Kind    Kind
	Verdict string   // "its policy drops" or "rule 4 of its chain input drops"
	Packets string   // the packets that it drops: "handshake that a peer begins"
	Visited []string // the chains that the packet went through
}

// Rules gives the rules and sets of a base chain's table.
type Rules interface {
	RulesOf(b netfilter.BaseChain, chain string) ([]netfilter.Rule, error)
	SetOf(b netfilter.BaseChain, set string) ([]nftables.SetElement, bool, error)
}

// Judge returns the chains among the given base chains that drop packets of the traffic, at most one
// Finding for each kind of packet and chain.
func Judge(r Rules, chains []netfilter.BaseChain, t Traffic) ([]Finding, error) {
	var out []Finding
	for _, b := range chains {
		found := map[Kind]bool{}
		for _, p := range t.packets() {
			seen, ok := p.at(b.Hook)
			if !ok || found[p.kind] {
				continue
			}
			w := walk{rules: r, base: b, packet: seen, pods: t.Pods.Or(Pods{})}
			verdict, err := w.dropped()
			if err != nil {
				return out, err
			}
			if verdict != "" {
				found[p.kind] = true
				out = append(out, Finding{Chain: b, Kind: p.kind, Verdict: verdict, Packets: p.about, Visited: w.visited})
			}
		}
	}
	return out, nil
}

// dropped follows the packet through the base chain and says what drops it, or nothing.
func (w *walk) dropped() (string, error) {
	end, err := w.chain(w.base.Name, 0)
	switch {
	case err != nil || w.doubt:
		return "", err
	case end.verdict == dropped:
		return fmt.Sprintf("rule %d of its chain %s drops", end.rule, end.chain), nil
	case end.verdict == undecided && w.base.Policy == 0: // NF_DROP
		return "its policy drops", nil
	}
	return "", nil
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
	rules  Rules
	base   netfilter.BaseChain
	packet packet
	pods   Pods
	doubt  bool // a rule that could not be judged may accept the packet

	visited []string // chains
}

// deepest is how deep nf_tables nests jumps (NFT_JUMP_STACK_SIZE).
const deepest = 16

// chain follows the packet through a chain.
func (w *walk) chain(name string, depth int) (end, error) {
	if depth > deepest {
		return end{}, nil
	}
	w.visited = append(w.visited, name)
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
