package iptables

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/loden-net/loden/config/opt"
	"github.com/loden-net/loden/network/firewall/netfilter"
	"github.com/loden-net/loden/network/firewall/rule"
)

// Fingerprint is how one family's iptables looks from outside, found without a process.
type Fingerprint struct {
	Text    string // differs whenever rules that concern us do, counters apart
	Ours    bool   // something of ours is there
	Flannel bool   // something of flannel's is there
	Used    int    // grows with the number of rules, everybody's; zero when there are none

	traces map[string]bool // tables with something of ours in them, or of flannel's
}

// trace notes what a name or a rule of a table tells.
func (p *Fingerprint) trace(table, s string) {
	p.Ours = p.Ours || ours(s)
	p.Flannel = p.Flannel || flannels(s)
	if ours(s) || flannels(s) {
		p.traces[table] = true
	}
}

// Places returns where to list before a change: where something of ours is. At
// Postrouting there may be unmarked rules of an old flannel's as well.
func (p Fingerprint) Places() []rule.Place {
	places := []rule.Place{rule.Postrouting}
	for _, at := range rule.Places() {
		if at != rule.Postrouting && p.traces[placeOf(at).table] {
			places = append(places, at)
		}
	}
	return places
}

// flannelPrefix starts the names of flannel's chains, flannelComment its comments.
const (
	flannelPrefix  = "FLANNEL-"
	flannelComment = "flanneld "
)

// ours reports whether a name or a rule in the kernel's form is ours.
func ours(s string) bool { return strings.Contains(s, hookPrefix) }

// flannels reports whether a name or a rule in the kernel's form is flannel's.
func flannels(s string) bool {
	return strings.Contains(s, flannelPrefix) || strings.Contains(s, flannelComment)
}

// FingerprintNFT looks at the rules that iptables-nft keeps in nf_tables.
func FingerprintNFT(c *netfilter.Conn, f opt.Family) (Fingerprint, error) {
	chains, _, err := readNFT(c, f)
	if errors.Is(err, netfilter.ErrAbsent) {
		return Fingerprint{}, nil
	}
	p := Fingerprint{traces: map[string]bool{}}
	var b strings.Builder
	for _, chain := range chains {
		p.Used += len(chain.rules)
		if chain.Type == "" {
			p.Used++
		}
		p.trace(chain.Table, chain.Name)
		if !chain.read {
			continue
		}
		fmt.Fprintf(&b, "%q %q\n", chain.Table, chain.Name)
		for _, r := range chain.rules {
			p.trace(chain.Table, r.Content)
			fmt.Fprintf(&b, "%q\n", r.Content)
		}
	}
	p.Text = b.String()
	return p, err
}

// nftChain is a chain of iptables-nft. Its rules are read only where they may concern us.
type nftChain struct {
	netfilter.Chain
	read  bool
	rules []netfilter.Rule
}

// readNFT lists the tables that we have rules in.
func readNFT(c *netfilter.Conn, f opt.Family) (chains []nftChain, generation uint32, err error) {
	generation, err = c.Consistent(func() error {
		chains = nil
		all, err := c.Chains(f, ownTable)
		if err != nil {
			return err
		}
		for _, chain := range all {
			n := nftChain{Chain: chain, read: chain.Type != "" || ours(chain.Name) || flannels(chain.Name)}
			if n.read {
				if n.rules, err = c.Rules(f, chain.Table, chain.Name); err != nil {
					return err
				}
			}
			chains = append(chains, n)
		}
		return nil
	})
	return chains, generation, err
}

// ownTable reports whether we have rules in a table.
func ownTable(name string) bool {
	all := rule.Places()
	return slices.ContainsFunc(all[:], func(p rule.Place) bool { return placeOf(p).table == name })
}

// RemoveNFT removes our rules, and flannel's where we take over from it, from what
// iptables-nft keeps in nf_tables, with no tool but the kernel, and the tables that are
// empty then: iptables makes them again when it needs them.
func RemoveNFT(c *netfilter.Conn, f opt.Family, takeOver bool) error {
	goes := func(s string) bool { return ours(s) || takeOver && flannels(s) }
	err := commit(c, f, func(chains []nftChain, f opt.Family) *netfilter.Batch { return removal(chains, f, goes) })
	if err != nil {
		return err
	}
	return TidyNFT(c, f)
}

// TidyNFT removes the tables of iptables-nft that hold nothing.
func TidyNFT(c *netfilter.Conn, f opt.Family) error { return commit(c, f, tidying) }

// commit reads, decides and applies, again if somebody else was faster.
func commit(c *netfilter.Conn, f opt.Family, decide func([]nftChain, opt.Family) *netfilter.Batch) error {
	const attempts = 5
	for range attempts {
		chains, generation, err := readNFT(c, f)
		if err != nil {
			return err
		}
		batch := decide(chains, f)
		if batch.Len() == 0 {
			return nil
		}
		err = c.Commit(batch, generation)
		if !errors.Is(err, netfilter.ErrChanged) {
			return err
		}
	}
	return netfilter.ErrChanged
}

// removal takes out every chain whose name goes, and every rule whose content goes.
func removal(chains []nftChain, f opt.Family, goes func(string) bool) *netfilter.Batch {
	b := &netfilter.Batch{}
	for _, chain := range chains {
		if goes(chain.Name) {
			b.FlushChain(f, chain.Table, chain.Name)
			continue
		}
		for _, r := range chain.rules {
			if goes(r.Content) {
				b.DeleteRule(f, chain.Table, chain.Name, r.Handle)
			}
		}
	}
	for _, chain := range chains {
		if goes(chain.Name) {
			b.DeleteChain(f, chain.Table, chain.Name)
		}
	}
	return b
}

func tidying(chains []nftChain, f opt.Family) *netfilter.Batch {
	const accept = 1 // NF_ACCEPT
	keep := map[string]bool{}
	for _, chain := range chains {
		empty := chain.Type != "" && chain.Policy == accept && len(chain.rules) == 0
		keep[chain.Table] = keep[chain.Table] || !empty
	}
	b := &netfilter.Batch{}
	for table, kept := range keep {
		if !kept {
			b.DeleteTable(f, table)
		}
	}
	return b
}

// FingerprintLegacy looks at the rules that iptables-legacy keeps in tables of its own.
func FingerprintLegacy(f opt.Family) (Fingerprint, error) {
	p := Fingerprint{traces: map[string]bool{}}
	names, err := netfilter.LegacyTables(f)
	if err != nil {
		return p, err
	}
	slices.Sort(names)
	var b strings.Builder
	for _, name := range names {
		content, count, err := netfilter.LegacyTable(f, name)
		if err != nil {
			return p, err
		}
		p.Used += count
		p.trace(name, string(content))
		fmt.Fprintf(&b, "%q %q\n", name, content)
	}
	p.Text = b.String()
	return p, nil
}

// Concerns reports whether a change of a chain of iptables-nft may concern us; an empty
// chain means the whole table.
func Concerns(table, chain string) bool {
	if !ownTable(table) {
		return false
	}
	all := rule.Places()
	base := slices.ContainsFunc(all[:], func(p rule.Place) bool {
		return placeOf(p).table == table && placeOf(p).base == chain
	})
	return base || chain == "" || ours(chain) || flannels(chain)
}
