// Package netfilter reads nf_tables, watches it, and removes tables, chains and rules from it, over
// netlink: it starts no process and needs no tool. It must not know the meaning of the rules.
//
// Lists and announcements come from google/nftables. Three things are kept by hand, because the library
// (v0.3.0) has none of them:
//
//   - the generation of nf_tables, which tells whether a series of dumps was consistent, and whether
//     anything changed since the last comparison;
//   - a batch that the kernel refuses when nf_tables is of another generation: without it the removal of
//     an empty table could take the rule that another program added a moment ago;
//   - the comment of a rule: userdata.Get of the library trusts the length that another program wrote,
//     and panics when that length is wrong.
package netfilter

import (
	"errors"
	"fmt"
	"math/bits"
	"strings"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/loden-net/loden/config/opt"
)

// ErrAbsent is returned when the kernel has no nf_tables.
var ErrAbsent = errors.New("the kernel has no nf_tables")

// Conn is a netlink socket of a network namespace: the namespace of the thread that called Dial. It
// must be closed, and must not be used by several goroutines at once.
type Conn struct{ c *nftables.Conn }

// Dial opens a socket.
func Dial() (*Conn, error) {
	c, err := nftables.New(nftables.AsLasting())
	if err != nil {
		return nil, fmt.Errorf("open netfilter socket: %w", err)
	}
	return &Conn{c: c}, nil
}

// Close closes the socket.
func (c *Conn) Close() error { return c.c.CloseLasting() }

// Chain is a chain of an nf_tables table. Type is empty unless the chain is a base chain: a chain that
// the kernel itself calls.
type Chain struct {
	Table, Name string
	Type        string // filter, nat, route
	Hook        uint32 // NF_INET_*
	Priority    int32
	Policy      uint32 // 1 accepts
}

// Rule is a rule of an nf_tables chain.
type Rule struct {
	Chain   string
	Handle  uint64
	Comment string // of rules that nft wrote; iptables keeps comments in Content
	Target  string // the chain that the rule jumps or goes to, if any
	Packets uint64
	Content string // the expressions without their counters, in the kernel's own form

	Exprs []expr.Any // the expressions that the library knows
}

// Tables returns the names of the tables of a family, and says which of them are dormant.
func (c *Conn) Tables(f opt.Family) (asleep map[string]bool, err error) {
	tables, err := c.c.ListTablesOfFamily(familyOf(f))
	if err != nil {
		return nil, fmt.Errorf("list %s tables: %w", f, err)
	}
	asleep = map[string]bool{}
	for _, t := range tables {
		asleep[t.Name] = dormant(t)
	}
	return asleep, nil
}

// dormant reports whether a table is switched off. The kernel sends the flags in network order; the
// library (v0.3.0) reads them in the host's.
func dormant(t *nftables.Table) bool {
	return (t.Flags|bits.ReverseBytes32(t.Flags))&unix.NFT_TABLE_F_DORMANT != 0
}

// Chains returns the chains of the tables for which keep is true.
func (c *Conn) Chains(f opt.Family, keep func(table string) bool) ([]Chain, error) {
	return c.chains(familyOf(f), keep)
}

func (c *Conn) chains(family nftables.TableFamily, keep func(table string) bool) ([]Chain, error) {
	all, err := c.c.ListChainsOfTableFamily(family)
	if err != nil {
		return nil, fmt.Errorf("list chains of nf_tables: %w", err)
	}
	var chains []Chain
	for _, ch := range all {
		if ch.Table == nil || !keep(ch.Table.Name) {
			continue
		}
		chain := Chain{Table: ch.Table.Name, Name: ch.Name}
		if ch.Hooknum != nil && ch.Priority != nil {
			chain.Type, chain.Hook, chain.Priority = string(ch.Type), uint32(*ch.Hooknum), int32(*ch.Priority)
			if ch.Policy != nil {
				chain.Policy = uint32(*ch.Policy)
			}
		}
		chains = append(chains, chain)
	}
	return chains, nil
}

// Rules returns the rules of a chain, in order.
func (c *Conn) Rules(f opt.Family, table, chain string) ([]Rule, error) {
	return c.rules(familyOf(f), table, chain)
}

func (c *Conn) rules(family nftables.TableFamily, table, chain string) ([]Rule, error) {
	all, err := c.c.GetRules(&nftables.Table{Name: table, Family: family}, &nftables.Chain{Name: chain})
	if err != nil {
		return nil, fmt.Errorf("list rules of %s %s: %w", table, chain, err)
	}
	var rules []Rule
	for _, r := range all {
		if r.Table == nil || r.Chain == nil || r.Table.Name != table || r.Chain.Name != chain {
			continue // old kernels do not filter the dump
		}
		rules = append(rules, read(r, chain, family))
	}
	return rules, nil
}

// read takes a rule apart as far as this program looks at it.
func read(r *nftables.Rule, chain string, family nftables.TableFamily) Rule {
	out := Rule{Chain: chain, Handle: r.Handle, Comment: comment(r.UserData), Exprs: r.Exprs}
	var content strings.Builder
	for _, e := range r.Exprs {
		switch e := e.(type) {
		case *expr.Counter:
			out.Packets = e.Packets
			continue // counters differ from dump to dump
		case *expr.Verdict:
			out.Target = e.Chain
		}
		b, err := expr.Marshal(byte(family), e)
		if err != nil {
			fmt.Fprintf(&content, "%T", e) // an expression that the library can read, but not write
		}
		content.Write(b)
	}
	out.Content = content.String()
	return out
}

// Counters returns the packets that the named counters of a table have seen.
func (c *Conn) Counters(f opt.Family, table string) (map[string]uint64, error) {
	objects, err := c.c.GetNamedObjects(&nftables.Table{Name: table, Family: familyOf(f)})
	if err != nil {
		return nil, fmt.Errorf("list %s counters of %s: %w", f, table, err)
	}
	counters := map[string]uint64{}
	for _, o := range objects {
		named, ok := o.(*nftables.NamedObj)
		if !ok || named.Table == nil || named.Table.Name != table {
			continue
		}
		if counter, ok := named.Obj.(*expr.Counter); ok {
			counters[named.Name] = counter.Packets
		}
	}
	return counters, nil
}

func familyOf(f opt.Family) nftables.TableFamily {
	if f == opt.V6 {
		return nftables.TableFamilyIPv6
	}
	return nftables.TableFamilyIPv4
}

// comment reads nft's comment from a rule's user data: triples of type, length and value, of which type
// 0 is the comment (libnftnl, NFTNL_UDATA_RULE_COMMENT). User data of another form has no comment.
func comment(data []byte) string {
	for len(data) >= 2 {
		kind, size := data[0], int(data[1])
		if len(data) < 2+size {
			return ""
		}
		if kind == 0 {
			text, _, _ := strings.Cut(string(data[2:2+size]), "\x00")
			return text
		}
		data = data[2+size:]
	}
	return ""
}
