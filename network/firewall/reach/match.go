package reach

import (
	"bytes"
	"encoding/binary"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/google/nftables/xt"
	"golang.org/x/sys/unix"

	"github.com/loden-net/loden/network/firewall/netfilter"
)

// state says whether a rule matches the packet.
type state int

const (
	yes state = iota
	no
	unknown
)

// value is the content of a register.
type value struct {
	known bool
	pod   bool // the name of a pod's interface: no name of the tunnel, of lo or of an uplink
	bytes []byte
}

// match judges the expressions of a rule.
type match struct {
	walk      *walk
	state     state
	registers map[uint32]value
}

// rule judges a rule and returns its verdict, if it has one. The verdict counts unless the state is no.
func (m *match) rule(r netfilter.Rule) (*expr.Verdict, error) {
	for _, e := range r.Exprs {
		v, err := m.expression(e)
		if err != nil || v != nil || m.state == no {
			return v, err
		}
	}
	return nil, nil
}

// require narrows the state by another condition.
func (m *match) require(s state) {
	if s == no || m.state == yes {
		m.state = s
	}
}

// expression judges the next expression of the rule.
func (m *match) expression(e expr.Any) (*expr.Verdict, error) {
	switch e := e.(type) {
	case *expr.Verdict:
		return e, nil
	case *expr.Reject:
		return &expr.Verdict{Kind: expr.VerdictDrop}, nil
	case *expr.Counter, *expr.Log, *expr.Objref, *expr.Notrack:
	case *expr.Immediate:
		m.registers[e.Register] = value{known: true, bytes: e.Data}
	case *expr.Meta:
		if !e.SourceRegister {
			m.registers[e.Register] = m.meta(e.Key)
		}
	case *expr.Ct:
		if !e.SourceRegister {
			m.registers[e.Register] = conntrack(e.Key)
		}
	case *expr.Payload:
		if e.OperationType == expr.PayloadLoad {
			m.registers[e.DestRegister] = m.payload(e)
		}
	case *expr.Bitwise:
		m.registers[e.DestRegister] = bitwise(m.registers[e.SourceRegister], e)
	case *expr.Cmp:
		m.require(m.compare(m.registers[e.Register], e))
	case *expr.Lookup:
		return m.lookup(e)
	case *expr.Match:
		m.require(extension(e))
	case *expr.Target:
		return target(e), nil
	default: // a limit, a fib lookup, a connection's label: any result is possible
		m.registers = map[uint32]value{}
		m.require(unknown)
	}
	return nil, nil
}

// meta returns the kernel's knowledge of the packet beside its bytes.
func (m *match) meta(key expr.MetaKey) value {
	p := m.walk.packet
	switch key {
	case expr.MetaKeyIIFNAME:
		return iface(p.in)
	case expr.MetaKeyOIFNAME:
		return iface(p.out)
	case expr.MetaKeyNFPROTO:
		if p.src.Is4() {
			return value{known: true, bytes: []byte{unix.NFPROTO_IPV4}}
		}
		return value{known: true, bytes: []byte{unix.NFPROTO_IPV6}}
	case expr.MetaKeyL4PROTO:
		return value{known: true, bytes: []byte{unix.IPPROTO_TCP}}
	}
	return value{}
}

// iface returns an interface name as the kernel loads it; the empty name stands for a pod's interface.
func iface(name string) value {
	if name == "" {
		return value{pod: true}
	}
	b := make([]byte, unix.IFNAMSIZ)
	copy(b, name)
	return value{known: true, bytes: b}
}

// conntrack returns the state of a new connection that no program has translated.
func conntrack(key expr.CtKey) value {
	switch key {
	case expr.CtKeySTATE:
		return value{known: true, bytes: binary.NativeEndian.AppendUint32(nil, expr.CtStateBitNEW)}
	case expr.CtKeySTATUS:
		return value{known: true, bytes: make([]byte, 4)}
	case expr.CtKeyDIRECTION:
		return value{known: true, bytes: []byte{0}}
	}
	return value{}
}

// payload returns bytes of the network header, as far as they are addresses or the protocol.
func (m *match) payload(e *expr.Payload) value {
	p := m.walk.packet
	if e.Base != expr.PayloadBaseNetworkHeader {
		return value{}
	}
	addresses, protocol := uint32(12), uint32(9)
	if p.src.Is6() {
		addresses, protocol = 8, 6
	}
	all := slices.Concat(p.src.AsSlice(), p.dst.AsSlice())
	switch {
	case e.Offset == protocol && e.Len == 1:
		return value{known: true, bytes: []byte{unix.IPPROTO_TCP}}
	case e.Offset >= addresses && e.Len <= uint32(len(all)) && e.Offset-addresses <= uint32(len(all))-e.Len:
		at := e.Offset - addresses
		return value{known: true, bytes: all[at : at+e.Len]}
	}
	return value{}
}

func bitwise(v value, e *expr.Bitwise) value {
	if !v.known || len(e.Mask) != len(v.bytes) || len(e.Xor) != len(v.bytes) {
		return value{}
	}
	out := make([]byte, len(v.bytes))
	for i := range out {
		out[i] = v.bytes[i]&e.Mask[i] ^ e.Xor[i]
	}
	return value{known: true, bytes: out}
}

// compare judges a comparison. Of the name of a pod's interface only this is known: it is not the name
// of the tunnel, of lo, or of an uplink.
func (m *match) compare(v value, e *expr.Cmp) state {
	if v.pod {
		name := string(bytes.TrimRight(e.Data, "\x00"))
		whole := len(e.Data) == unix.IFNAMSIZ // otherwise a pattern, as in "eth*"
		if whole && (name == m.walk.pods.Tunnel || name == "lo" || m.walk.pods.Uplinks.Has(name)) {
			return truth(e.Op == expr.CmpOpNeq)
		}
		return unknown
	}
	if !v.known || len(v.bytes) < len(e.Data) {
		return unknown
	}
	c := bytes.Compare(v.bytes[:len(e.Data)], e.Data)
	switch e.Op {
	case expr.CmpOpEq:
		return truth(c == 0)
	case expr.CmpOpNeq:
		return truth(c != 0)
	case expr.CmpOpLt:
		return truth(c < 0)
	case expr.CmpOpLte:
		return truth(c <= 0)
	case expr.CmpOpGt:
		return truth(c > 0)
	case expr.CmpOpGte:
		return truth(c >= 0)
	}
	return unknown
}

func truth(b bool) state {
	if b {
		return yes
	}
	return no
}

// lookup judges a set, or a map of verdicts.
func (m *match) lookup(e *expr.Lookup) (*expr.Verdict, error) {
	v := m.registers[e.SourceRegister]
	verdicts := e.IsDestRegSet && e.DestRegister == unix.NFT_REG_VERDICT
	members, whole, err := m.walk.rules.SetOf(m.walk.base, e.SetName)
	if err != nil {
		return nil, err
	}
	if !v.known || !whole || e.IsDestRegSet && !verdicts {
		m.require(unknown)
		if verdicts { // any of its verdicts is possible
			m.walk.doubt = true
		}
		return nil, nil
	}
	i := slices.IndexFunc(members, func(s nftables.SetElement) bool { return sameKey(s.Key, v.bytes) })
	if !verdicts {
		m.require(truth((i >= 0) != e.Invert))
		return nil, nil
	}
	if i < 0 {
		m.require(no)
		return nil, nil
	}
	return members[i].VerdictData, nil
}

// sameKey compares a set's key with a register, either of which may be filled up with zeros.
func sameKey(key, register []byte) bool {
	return bytes.Equal(bytes.TrimRight(key, "\x00"), bytes.TrimRight(register, "\x00"))
}

// extension judges a match of iptables that nf_tables has no expression for.
func extension(e *expr.Match) state {
	const stateFlag, newBit = 1, 8 // XT_CONNTRACK_STATE; XT_CONNTRACK_STATE_BIT(IP_CT_NEW)
	ct, ok := e.Info.(*xt.ConntrackMtinfo3)
	switch {
	case e.Name == "comment":
		return yes
	case e.Name == "conntrack" && ok && ct.MatchFlags == stateFlag:
		return truth((ct.StateMask&newBit != 0) != (ct.InvertFlags&stateFlag != 0))
	}
	return unknown
}

// target returns the verdict of a target of iptables that nf_tables has no expression for; most of them
// only change the packet.
func target(e *expr.Target) *expr.Verdict {
	if e.Name == "REJECT" {
		return &expr.Verdict{Kind: expr.VerdictDrop}
	}
	return nil
}
