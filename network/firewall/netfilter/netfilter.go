// Package netfilter reads what the kernel's packet filters hold, and removes from it, over
// netlink and socket options: no process is started and no tool need be installed. It
// knows nothing of what the rules mean.
package netfilter

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/loden-net/loden/config/opt"
)

// ErrAbsent is returned when the kernel has no nf_tables.
var ErrAbsent = errors.New("kernel has no nf_tables")

// Conn is a netlink socket of one network namespace: that of the thread that called Dial.
// It must be closed, and is used by one goroutine at a time.
type Conn struct{ c *netlink.Conn }

// Dial opens a socket.
func Dial() (*Conn, error) {
	c, err := netlink.Dial(unix.NETLINK_NETFILTER, nil)
	if err != nil {
		return nil, fmt.Errorf("open netfilter socket: %w", err)
	}
	return &Conn{c: c}, nil
}

// Close closes the socket.
func (c *Conn) Close() error { return c.c.Close() }

// Chain is a chain of an nf_tables table. Type is empty unless the kernel calls it itself.
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
	Comment string // of rules written by nft; iptables keeps its own in Content
	Target  string // the chain it jumps or goes to, if any
	Packets uint64
	Content string // the expressions without their counters, in the kernel's own form
}

// Generation returns a number that is another after every change of nf_tables.
func (c *Conn) Generation() (uint32, error) {
	msgs, err := c.c.Execute(request(unix.NFT_MSG_GETGEN, 0, netlink.Request, nil))
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EOPNOTSUPP) {
		return 0, ErrAbsent
	}
	if err != nil {
		return 0, fmt.Errorf("read generation of nf_tables: %w", err)
	}
	for _, m := range msgs {
		if b, ok := attributes(m)[unix.NFTA_GEN_ID]; ok && len(b) == 4 {
			return binary.BigEndian.Uint32(b), nil
		}
	}
	return 0, errors.New("read generation of nf_tables: no number in the answer")
}

// Tables returns the names of the tables of a family, and which of them are dormant.
func (c *Conn) Tables(f opt.Family) (dormant map[string]bool, err error) {
	msgs, err := c.dump(unix.NFT_MSG_GETTABLE, f, nil)
	if err != nil {
		return nil, fmt.Errorf("list %s tables: %w", f, err)
	}
	dormant = map[string]bool{}
	for _, m := range msgs {
		a := attributes(m)
		dormant[text(a[unix.NFTA_TABLE_NAME])] = number(a[unix.NFTA_TABLE_FLAGS])&1 != 0
	}
	return dormant, nil
}

// Chains returns the chains of the tables for which keep is true.
func (c *Conn) Chains(f opt.Family, keep func(table string) bool) ([]Chain, error) {
	msgs, err := c.dump(unix.NFT_MSG_GETCHAIN, f, nil)
	if err != nil {
		return nil, fmt.Errorf("list %s chains: %w", f, err)
	}
	var chains []Chain
	for _, m := range msgs {
		a := attributes(m)
		chain := Chain{Table: text(a[unix.NFTA_CHAIN_TABLE]), Name: text(a[unix.NFTA_CHAIN_NAME])}
		if !keep(chain.Table) {
			continue
		}
		if hook, ok := a[unix.NFTA_CHAIN_HOOK]; ok {
			h := nested(hook)
			chain.Type = text(a[unix.NFTA_CHAIN_TYPE])
			chain.Hook = number(h[unix.NFTA_HOOK_HOOKNUM])
			chain.Priority = int32(number(h[unix.NFTA_HOOK_PRIORITY]))
			chain.Policy = number(a[unix.NFTA_CHAIN_POLICY])
		}
		chains = append(chains, chain)
	}
	return chains, nil
}

// Rules returns the rules of one chain, in order.
func (c *Conn) Rules(f opt.Family, table, chain string) ([]Rule, error) {
	attrs, err := netlink.MarshalAttributes([]netlink.Attribute{
		{Type: unix.NFTA_RULE_TABLE, Data: cString(table)},
		{Type: unix.NFTA_RULE_CHAIN, Data: cString(chain)},
	})
	if err != nil {
		return nil, err
	}
	msgs, err := c.dump(unix.NFT_MSG_GETRULE, f, attrs)
	if errors.Is(err, unix.ENOENT) {
		return nil, nil // gone since its chain was listed
	}
	if err != nil {
		return nil, fmt.Errorf("list %s rules of %s %s: %w", f, table, chain, err)
	}
	var rules []Rule
	for _, m := range msgs {
		a := attributes(m)
		// Old kernels do not filter the dump.
		if text(a[unix.NFTA_RULE_TABLE]) != table || text(a[unix.NFTA_RULE_CHAIN]) != chain {
			continue
		}
		r := Rule{Chain: chain, Comment: comment(a[unix.NFTA_RULE_USERDATA])}
		if h := a[unix.NFTA_RULE_HANDLE]; len(h) == 8 {
			r.Handle = binary.BigEndian.Uint64(h)
		}
		r.read(a[unix.NFTA_RULE_EXPRESSIONS])
		rules = append(rules, r)
	}
	return rules, nil
}

// Counters returns the packets that the named counters of a table have seen.
func (c *Conn) Counters(f opt.Family, table string) (map[string]uint64, error) {
	msgs, err := c.dump(unix.NFT_MSG_GETOBJ, f, nil)
	if err != nil {
		return nil, fmt.Errorf("list %s counters: %w", f, err)
	}
	counters := map[string]uint64{}
	for _, m := range msgs {
		a := attributes(m)
		packets := nested(a[unix.NFTA_OBJ_DATA])[unix.NFTA_COUNTER_PACKETS]
		if text(a[unix.NFTA_OBJ_TABLE]) == table && len(packets) == 8 {
			counters[text(a[unix.NFTA_OBJ_NAME])] = binary.BigEndian.Uint64(packets)
		}
	}
	return counters, nil
}

// dump asks for all objects of a kind. A dump that others' changes interrupted is not
// trusted: callers compare the generation around a series of dumps.
func (c *Conn) dump(kind uint16, f opt.Family, attrs []byte) ([]netlink.Message, error) {
	return c.c.Execute(request(kind, familyNumber(f), netlink.Request|netlink.Dump, attrs))
}

// Consistent runs read until no change of nf_tables fell into it, a few times at most.
func (c *Conn) Consistent(read func() error) (generation uint32, err error) {
	const attempts = 10
	for range attempts {
		before, err := c.Generation()
		if err != nil {
			return 0, err
		}
		failed := read()
		after, err := c.Generation()
		if err != nil {
			return 0, err
		}
		if before == after {
			return after, failed
		}
	}
	return 0, errors.New("read nf_tables: they change all the time")
}

func familyNumber(f opt.Family) uint8 {
	if f == opt.V6 {
		return unix.NFPROTO_IPV6
	}
	return unix.NFPROTO_IPV4
}
