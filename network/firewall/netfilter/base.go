package netfilter

import (
	"bytes"
	"encoding/binary"
	"fmt"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/loden-net/loden/config/opt"
)

// BaseChain is a base chain of any program's table, in an nf_tables family that sees packets of an
// address family.
type BaseChain struct {
	Family string // as nft writes it: ip, ip6 or inet
	Chain

	table nftables.TableFamily
}

// FilterChains returns the base chains of every program that may drop packets of an address family, at
// any hook. Chains that translate addresses are not among them.
func (c *Conn) FilterChains(f opt.Family) ([]BaseChain, error) {
	own := BaseChain{Family: "ip", table: familyOf(f)}
	if f == opt.V6 {
		own.Family = "ip6"
	}
	var out []BaseChain
	for _, b := range []BaseChain{own, {Family: "inet", table: nftables.TableFamilyINet}} {
		chains, err := c.chains(b.table, func(string) bool { return true })
		if err != nil {
			return nil, err
		}
		tables, err := c.c.ListTablesOfFamily(b.table)
		if err != nil {
			return nil, fmt.Errorf("list %s tables: %w", b.Family, err)
		}
		for _, ch := range chains {
			if (ch.Type == string(nftables.ChainTypeFilter) || ch.Type == string(nftables.ChainTypeRoute)) && !asleep(tables, ch.Table) {
				b.Chain = ch
				out = append(out, b)
			}
		}
	}
	return out, nil
}

// asleep reports whether a table is dormant: the kernel does not ask its chains.
func asleep(tables []*nftables.Table, name string) bool {
	for _, t := range tables {
		if t.Name == name {
			return dormant(t)
		}
	}
	return false
}

// RulesOf returns the rules of a chain of the base chain's table.
func (c *Conn) RulesOf(b BaseChain, chain string) ([]Rule, error) {
	return c.rules(b.table, b.Table, chain)
}

// SetOf returns the members of a set, or the keys of a map, of the base chain's table. ok is false for
// sets of intervals.
func (c *Conn) SetOf(b BaseChain, set string) (members []nftables.SetElement, ok bool, err error) {
	s, err := c.c.GetSetByName(&nftables.Table{Name: b.Table, Family: b.table}, set)
	if err != nil {
		return nil, false, fmt.Errorf("read set %s of %s: %w", set, b.Table, err)
	}
	if s.Interval || s.Concatenation {
		return nil, false, nil
	}
	members, err = c.c.GetSetElements(s)
	if err != nil {
		return nil, false, fmt.Errorf("list set %s of %s: %w", set, b.Table, err)
	}
	for i := range members {
		members[i].VerdictData = verdictOf(members[i].Val)
	}
	return members, true, nil
}

// verdictOf reads the verdict in the data of a map's member: the attributes NFTA_VERDICT_CODE and
// NFTA_VERDICT_CHAIN. The library (v0.3.0) leaves them as they are. Data of another form has no verdict.
func verdictOf(data []byte) *expr.Verdict {
	const head, align = 4, 4 // sizes of struct nlattr
	var v *expr.Verdict
	chain := ""
	for len(data) >= head {
		size, kind := int(binary.NativeEndian.Uint16(data)), binary.NativeEndian.Uint16(data[2:])
		if size < head || size > len(data) {
			return nil
		}
		switch content := data[head:size]; {
		case kind == unix.NFTA_VERDICT_CODE && len(content) == 4:
			v = &expr.Verdict{Kind: expr.VerdictKind(int32(binary.BigEndian.Uint32(content)))}
		case kind == unix.NFTA_VERDICT_CHAIN:
			chain = string(bytes.TrimRight(content, "\x00"))
		}
		data = data[min(len(data), (size+align-1)/align*align):]
	}
	if v != nil {
		v.Chain = chain
	}
	return v
}
