package iptables

import (
	"encoding/binary"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/loden-net/loden/config/opt"
	"github.com/loden-net/loden/network/firewall/netfilter"
)

// Saved is the rules of iptables-legacy as iptables-legacy-save lists them, in the form of nf_tables, so
// that one judge reads both. The zero Saved has no rules.
type Saved struct {
	bases []netfilter.BaseChain
	rules map[string][]netfilter.Rule // by "table chain"
}

// ParseSaved reads the output of iptables-legacy-save of a family. A match that it does not know becomes
// an expression that the judge does not know.
func ParseSaved(f opt.Family, text string) Saved {
	s := Saved{rules: map[string][]netfilter.Rule{}}
	tables := savedTables(text)
	for name, table := range tables {
		for chain, policy := range table.policies {
			at, ok := hookOf(chain)
			if priority, filters := priorities()[name]; ok && filters {
				s.bases = append(s.bases, netfilter.BaseChain{Family: "legacy", Chain: netfilter.Chain{
					Table: name, Name: chain, Type: string(nftables.ChainTypeFilter), Hook: at, Priority: priority, Policy: policy,
				}})
			}
		}
		for chain, lines := range table.lines {
			for _, words := range lines {
				t := translation{family: f, table: table, words: words}
				s.rules[name+" "+chain] = append(s.rules[name+" "+chain], netfilter.Rule{Chain: chain, Exprs: t.expressions()})
			}
		}
	}
	slices.SortFunc(s.bases, func(a, b netfilter.BaseChain) int { return strings.Compare(a.Table+a.Name, b.Table+b.Name) })
	return s
}

// BaseChains returns the chains that the kernel calls, without those that translate addresses.
func (s Saved) BaseChains() []netfilter.BaseChain { return s.bases }

// RulesOf returns the rules of a chain of the base chain's table.
func (s Saved) RulesOf(b netfilter.BaseChain, chain string) ([]netfilter.Rule, error) {
	return s.rules[b.Table+" "+chain], nil
}

// SetOf knows no set: iptables has sets only by a match of its own.
func (s Saved) SetOf(netfilter.BaseChain, string) ([]nftables.SetElement, bool, error) {
	return nil, false, nil
}

// priorities returns the tables that may drop, with the priorities of the kernel.
func priorities() map[string]int32 {
	return map[string]int32{"raw": -300, "mangle": -150, "filter": 0, "security": 50}
}

// hookOf returns the hook of a built-in chain.
func hookOf(chain string) (hook uint32, ok bool) {
	hook, ok = map[string]uint32{
		"PREROUTING": unix.NF_INET_PRE_ROUTING, "INPUT": unix.NF_INET_LOCAL_IN, "FORWARD": unix.NF_INET_FORWARD,
		"OUTPUT": unix.NF_INET_LOCAL_OUT, "POSTROUTING": unix.NF_INET_POST_ROUTING,
	}[chain]
	return hook, ok
}

// savedTable is a table of the listing.
type savedTable struct {
	policies map[string]uint32 // of every chain; chains that a program made have none in truth
	lines    map[string][][]string
}

// savedTables takes a listing apart.
func savedTables(text string) map[string]savedTable {
	tables := map[string]savedTable{}
	var now savedTable
	for line := range strings.Lines(text) {
		words := split(strings.TrimRight(line, "\n"))
		switch {
		case len(words) == 0:
		case strings.HasPrefix(words[0], "*"):
			now = savedTable{policies: map[string]uint32{}, lines: map[string][][]string{}}
			tables[words[0][1:]] = now
		case strings.HasPrefix(words[0], ":") && len(words) > 1 && now.policies != nil:
			policy := uint32(1) // NF_ACCEPT
			if words[1] == "DROP" {
				policy = 0
			}
			now.policies[words[0][1:]] = policy
		case words[0] == "-A" && len(words) > 1 && now.lines != nil:
			now.lines[words[1]] = append(now.lines[words[1]], words[2:])
		}
	}
	return tables
}

// translation writes a rule of iptables in expressions of nf_tables.
type translation struct {
	family opt.Family
	table  savedTable
	words  []string
	out    []expr.Any
	not    bool
}

// register is the only register that the expressions use.
const register = 1

// expressions translates the whole rule.
func (t *translation) expressions() []expr.Any {
	for len(t.words) > 0 {
		word := t.next()
		if word == "!" {
			t.not = true
			continue
		}
		if word == "-j" || word == "-g" {
			t.target(word, t.next()) // options of the target follow
			return t.out
		}
		t.option(word)
		t.not = false
	}
	return t.out
}

// next takes the next word, or "" at the end.
func (t *translation) next() string {
	if len(t.words) == 0 {
		return ""
	}
	word := t.words[0]
	t.words = t.words[1:]
	return word
}

// option translates a match.
func (t *translation) option(word string) {
	switch word {
	case "-m":
		if !slices.Contains([]string{"tcp", "udp", "icmp", "icmp6", "comment", "conntrack", "state"}, t.next()) {
			t.unknown()
		}
	case "--comment":
		t.next()
	case "-s", "-d":
		t.address(word, t.next())
	case "-i", "-o":
		t.link(word, t.next())
	case "-p":
		t.protocol(t.next())
	case "--sport", "--dport":
		t.port(word, t.next())
	case "--ctstate", "--state":
		t.state(t.next())
	default:
		for len(t.words) > 0 && !strings.HasPrefix(t.words[0], "-") && t.words[0] != "!" {
			t.next()
		}
		t.unknown()
	}
}

// unknown adds an expression that the judge does not know.
func (t *translation) unknown() { t.out = append(t.out, &expr.Limit{}) }

// compare adds a comparison of the register, turned round after a "!".
func (t *translation) compare(data []byte) {
	op := expr.CmpOpEq
	if t.not {
		op = expr.CmpOpNeq
	}
	t.out = append(t.out, &expr.Cmp{Op: op, Register: register, Data: data})
}

func (t *translation) address(flag, text string) {
	p, err := netip.ParsePrefix(text)
	if err != nil {
		t.unknown()
		return
	}
	offset, size := uint32(12), uint32(4)
	if t.family == opt.V6 {
		offset, size = 8, 16
	}
	if flag == "-d" {
		offset += size
	}
	t.out = append(t.out,
		&expr.Payload{DestRegister: register, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: size},
		&expr.Bitwise{SourceRegister: register, DestRegister: register, Len: size, Mask: net.CIDRMask(p.Bits(), int(size)*8), Xor: make([]byte, size)})
	t.compare(p.Masked().Addr().AsSlice())
}

func (t *translation) link(flag, name string) {
	key := expr.MetaKeyIIFNAME
	if flag == "-o" {
		key = expr.MetaKeyOIFNAME
	}
	data := make([]byte, unix.IFNAMSIZ)
	copy(data, name)
	if pattern, ok := strings.CutSuffix(name, "+"); ok {
		data = []byte(pattern)
	}
	t.out = append(t.out, &expr.Meta{Key: key, Register: register})
	t.compare(data)
}

func (t *translation) protocol(name string) {
	number, ok := map[string]byte{"tcp": unix.IPPROTO_TCP, "udp": unix.IPPROTO_UDP, "icmp": unix.IPPROTO_ICMP, "ipv6-icmp": unix.IPPROTO_ICMPV6, "icmpv6": unix.IPPROTO_ICMPV6}[name]
	if n, err := strconv.ParseUint(name, 10, 8); err == nil {
		number, ok = byte(n), true
	}
	if !ok {
		t.unknown()
		return
	}
	t.out = append(t.out, &expr.Meta{Key: expr.MetaKeyL4PROTO, Register: register})
	t.compare([]byte{number})
}

func (t *translation) port(flag, text string) {
	low, high, isRange := strings.Cut(text, ":")
	first, err1 := strconv.ParseUint(low, 10, 16)
	last, err2 := strconv.ParseUint(high, 10, 16)
	if err1 != nil || isRange && (err2 != nil || t.not) {
		t.unknown()
		return
	}
	at := &expr.Payload{DestRegister: register, Base: expr.PayloadBaseTransportHeader, Len: 2}
	if flag == "--dport" {
		at.Offset = 2
	}
	t.out = append(t.out, at)
	if !isRange {
		t.compare(binary.BigEndian.AppendUint16(nil, uint16(first)))
		return
	}
	t.out = append(t.out,
		&expr.Cmp{Op: expr.CmpOpGte, Register: register, Data: binary.BigEndian.AppendUint16(nil, uint16(first))},
		&expr.Cmp{Op: expr.CmpOpLte, Register: register, Data: binary.BigEndian.AppendUint16(nil, uint16(last))})
}

func (t *translation) state(names string) {
	var mask uint32
	for name := range strings.SplitSeq(names, ",") {
		bit, ok := map[string]uint32{
			"INVALID": expr.CtStateBitINVALID, "ESTABLISHED": expr.CtStateBitESTABLISHED, "RELATED": expr.CtStateBitRELATED,
			"NEW": expr.CtStateBitNEW, "UNTRACKED": expr.CtStateBitUNTRACKED,
		}[name]
		if !ok {
			t.unknown()
			return
		}
		mask |= bit
	}
	t.out = append(t.out,
		&expr.Ct{Key: expr.CtKeySTATE, Register: register},
		&expr.Bitwise{SourceRegister: register, DestRegister: register, Len: 4, Mask: binary.NativeEndian.AppendUint32(nil, mask), Xor: make([]byte, 4)})
	t.not = !t.not // "has a state of these" is "the masked state is not zero"
	t.compare(make([]byte, 4))
}

// target adds the verdict, or a target that the judge knows by its name.
func (t *translation) target(flag, name string) {
	_, isChain := t.table.policies[name]
	kinds := map[string]expr.VerdictKind{"ACCEPT": expr.VerdictAccept, "DROP": expr.VerdictDrop, "RETURN": expr.VerdictReturn}
	kind, known := kinds[name]
	switch {
	case known:
		t.out = append(t.out, &expr.Verdict{Kind: kind})
	case isChain && flag == "-g":
		t.out = append(t.out, &expr.Verdict{Kind: expr.VerdictGoto, Chain: name})
	case isChain:
		t.out = append(t.out, &expr.Verdict{Kind: expr.VerdictJump, Chain: name})
	default:
		t.out = append(t.out, &expr.Target{Name: name})
	}
}
