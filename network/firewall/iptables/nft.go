package iptables

import (
	"errors"
	"fmt"
	"strings"

	"github.com/loden-net/loden/config/opt"
	"github.com/loden-net/loden/network/firewall/netfilter"
	"github.com/loden-net/loden/network/firewall/rule"
)

// FingerprintNFT reads the rules that iptables-nft keeps in nf_tables. It starts no process.
func FingerprintNFT(o rule.Owner, f opt.Family) (Fingerprint, error) {
	c, err := netfilter.Dial()
	if err != nil {
		return Fingerprint{}, err
	}
	defer c.Close()
	chains, _, err := readNFT(c, f)
	if errors.Is(err, netfilter.ErrAbsent) {
		return Fingerprint{}, nil
	}
	p := newFingerprint(o)
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

// nftChain is a chain of iptables-nft. Its rules are read only where they may concern Loden.
type nftChain struct {
	netfilter.Chain
	read  bool
	rules []netfilter.Rule
}

// readNFT lists the tables that Loden has rules in.
func readNFT(c *netfilter.Conn, f opt.Family) (chains []nftChain, generation uint32, err error) {
	generation, err = c.Consistent(func() error {
		chains = nil
		all, err := c.Chains(f, ownTable)
		if err != nil {
			return err
		}
		for _, chain := range all {
			n := nftChain{Chain: chain, read: chain.Type != "" || daemonChain.MatchString(chain.Name) || flannels(chain.Name)}
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

// RemoveNFT removes the daemon's rules, and flannel's where Loden takes over from it, from the tables of
// iptables-nft, and then the tables that are empty: iptables makes them again when it needs them. It
// starts no process.
func RemoveNFT(c *netfilter.Conn, o rule.Owner, f opt.Family, takeOver bool) error {
	goes := func(text string) bool { return ours(o, text) || takeOver && flannels(text) }
	err := commit(c, f, func(chains []nftChain, f opt.Family) *netfilter.Batch { return removal(chains, f, goes) })
	if err != nil {
		return err
	}
	return TidyNFT(c, f)
}

// TidyNFT removes the tables of iptables-nft that hold no rule.
func TidyNFT(c *netfilter.Conn, f opt.Family) error { return commit(c, f, tidying) }

// commit reads, decides and applies, and starts again when another program changed rules meanwhile.
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
		err = batch.Commit(generation)
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

// tidying takes out the tables that hold empty base chains with the policy accept, and no other chain.
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
