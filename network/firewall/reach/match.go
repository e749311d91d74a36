package reach

import (
	"bytes"
	"encoding/binary"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/google/nftables/xt"
	"golang.org/x/sys/unix"

	"github.com/loden-net/loden/config/opt"
	"github.com/loden-net/loden/network/firewall/netfilter"
)

// state says whether a rule matches the packet.
type state int

const (
	yes state = iota
	no
	unknown
)

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
	case *expr.Queue:
		return &expr.Verdict{Kind: expr.VerdictQueue}, nil
	case *expr.Counter, *expr.Log, *expr.Objref, *expr.Notrack:
	case *expr.Immediate:
		m.registers[e.Register] = certainly(e.Data...)
	case *expr.Meta:
		if !e.SourceRegister {
			m.registers[e.Register] = m.meta(e.Key)
		}
	case *expr.Ct:
		if !e.SourceRegister {
			m.registers[e.Register] = m.conntrack(e.Key)
		}
	case *expr.Payload:
		if e.OperationType == expr.PayloadLoad {
			m.registers[e.DestRegister] = m.payload(e)
		}
	case *expr.Bitwise:
		m.registers[e.DestRegister] = m.registers[e.SourceRegister].masked(e.Mask, e.Xor)
	case *expr.Cmp:
		m.require(m.compare(m.registers[e.Register], e))
	case *expr.Range:
		m.require(m.between(m.registers[e.Register], e))
	case *expr.Lookup:
		return m.lookup(e)
	case *expr.Match:
		m.require(m.extension(e))
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
		if p.family == opt.V4 {
			return certainly(unix.NFPROTO_IPV4)
		}
		return certainly(unix.NFPROTO_IPV6)
	case expr.MetaKeyL4PROTO:
		return certainly(p.protocol)
	}
	return value{}
}

// iface returns an interface name as the kernel loads it.
func iface(l link) value {
	if l.name == "" {
		return value{pod: l.pod}
	}
	b := make([]byte, unix.IFNAMSIZ)
	copy(b, l.name)
	return certainly(b...)
}

// conntrack returns the state of a new connection that no program has translated. Chains that are asked
// before connection tracking (NF_IP_PRI_CONNTRACK) see no state.
func (m *match) conntrack(key expr.CtKey) value {
	if m.walk.base.Priority <= -200 {
		return value{}
	}
	switch key {
	case expr.CtKeySTATE:
		return certainly(binary.NativeEndian.AppendUint32(nil, expr.CtStateBitNEW)...)
	case expr.CtKeySTATUS:
		return certainly(0, 0, 0, 0)
	case expr.CtKeyDIRECTION:
		return certainly(0)
	}
	return value{}
}

// payload returns bytes of the packet.
func (m *match) payload(e *expr.Payload) value {
	var from value
	switch e.Base {
	case expr.PayloadBaseNetworkHeader:
		from = m.walk.packet.networkHeader()
	case expr.PayloadBaseTransportHeader:
		from = m.walk.packet.transportHeader()
	}
	return from.part(e.Offset, e.Len)
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
	if len(v.bytes) < len(e.Data) {
		return unknown
	}
	v = v.part(0, uint32(len(e.Data)))
	switch e.Op {
	case expr.CmpOpEq:
		return v.equals(e.Data)
	case expr.CmpOpNeq:
		return opposite(v.equals(e.Data))
	}
	c := bytes.Compare(v.bytes, e.Data)
	switch {
	case !v.certain():
		return unknown
	case e.Op == expr.CmpOpLt:
		return truth(c < 0)
	case e.Op == expr.CmpOpLte:
		return truth(c <= 0)
	case e.Op == expr.CmpOpGt:
		return truth(c > 0)
	case e.Op == expr.CmpOpGte:
		return truth(c >= 0)
	}
	return unknown
}

// between judges a range.
func (m *match) between(v value, e *expr.Range) state {
	if !v.certain() || len(v.bytes) != len(e.FromData) || len(v.bytes) != len(e.ToData) {
		return unknown
	}
	inside := bytes.Compare(e.FromData, v.bytes) <= 0 && bytes.Compare(v.bytes, e.ToData) <= 0
	return truth(inside == (e.Op == expr.CmpOpEq))
}

func truth(b bool) state {
	if b {
		return yes
	}
	return no
}

func opposite(s state) state {
	switch s {
	case yes:
		return no
	case no:
		return yes
	}
	return unknown
}

// lookup judges a set, or a map of verdicts.
func (m *match) lookup(e *expr.Lookup) (*expr.Verdict, error) {
	v := m.registers[e.SourceRegister]
	verdicts := e.IsDestRegSet && e.DestRegister == unix.NFT_REG_VERDICT
	members, whole, err := m.walk.rules.SetOf(m.walk.base, e.SetName)
	if err != nil {
		return nil, err
	}
	if !v.certain() || !whole || e.IsDestRegSet && !verdicts {
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
func (m *match) extension(e *expr.Match) state {
	const stateFlag, newBit = 1, 8 // XT_CONNTRACK_STATE; XT_CONNTRACK_STATE_BIT(IP_CT_NEW)
	switch info := e.Info.(type) {
	case *xt.ConntrackMtinfo3:
		if info.MatchFlags == stateFlag && m.walk.base.Priority > -200 {
			return truth((info.StateMask&newBit != 0) != (info.InvertFlags&stateFlag != 0))
		}
	case *xt.Udp:
		return m.ports(info)
	}
	if e.Name == "comment" {
		return yes
	}
	return unknown
}

// ports judges the ports of a datagram. nf_tables asks for the protocol in an expression of its own.
func (m *match) ports(u *xt.Udp) state {
	p := m.walk.packet
	out := yes
	for _, at := range []struct {
		port    uint16
		between [2]uint16
		not     bool
	}{
		{p.sourcePort, u.SrcPorts, u.InvFlags&xt.UdpInvSrcPorts != 0},
		{p.port, u.DstPorts, u.InvFlags&xt.UdpInvDestPorts != 0},
	} {
		switch inside := at.between[0] <= at.port && at.port <= at.between[1]; {
		case at.between == [2]uint16{0, 65535} && !at.not:
		case at.port == 0:
			out = unknown
		case inside == at.not:
			return no
		}
	}
	return out
}

// target returns the verdict of a target of iptables that nf_tables has no expression for. A target
// that is not known to let the packet go on leaves the decision to another program.
func target(e *expr.Target) *expr.Verdict {
	goesOn := []string{
		"AUDIT", "CHECKSUM", "CLASSIFY", "CONNMARK", "CONNSECMARK", "CT", "DSCP", "HL", "HMARK", "LED", "LOG", "MARK", "NFLOG", "NOTRACK",
		"RATEEST", "SECMARK", "SET", "TCPMSS", "TEE", "TOS", "TRACE", "TTL", "ULOG",
	}
	switch {
	case e.Name == "REJECT":
		return &expr.Verdict{Kind: expr.VerdictDrop}
	case slices.Contains(goesOn, e.Name):
		return nil
	}
	return &expr.Verdict{Kind: expr.VerdictQueue}
}
