package firewall

import (
	"context"
	"errors"
	"fmt"
	"os/exec"

	"github.com/rs/zerolog"

	"github.com/loden-net/loden/config/opt"
	"github.com/loden-net/loden/network/firewall/iptables"
	"github.com/loden-net/loden/network/firewall/rule"
)

// Options says which driver to use.
type Options struct {
	Backend string // "auto" (also ""), "iptables" or "nftables": the value of --firewall

	// PreferNFTables makes "auto" take nftables where both are installed: the network document's
	// EnableNFTables.
	PreferNFTables bool

	// Interface is the name of the daemon's tunnel interface. The names of chains and tables are made from
	// it, so that the daemons of several networks on one host leave each other's rules alone. Empty stands
	// for the default interface.
	Interface string

	Log zerolog.Logger
}

// ErrNoTools is returned by Open when neither iptables nor nftables is installed.
var ErrNoTools = errors.New("neither iptables nor nft is installed: install iptables or nftables")

// Open chooses the driver. It changes nothing in the kernel, and the Firewall needs no closing.
func Open(_ context.Context, o Options) (*Firewall, error) {
	kind, reason, err := choose(o)
	if err != nil {
		return nil, err
	}
	k := newKernel(rule.OwnerOf(o.Interface))
	f := &Firewall{log: o.Log, kind: kind, reason: reason, kernel: k}
	inUse := func(opt.Family) (iptables.Variant, error) { return "", nil }
	if kind == NFTables {
		f.chosen = newNFTables(k)
	} else {
		d := newIPTables(k)
		f.chosen, inUse = d, d.variant
		f.leftovers = append(f.leftovers, nftablesLeftover(k))
	}
	for _, v := range []iptables.Variant{iptables.NFT, iptables.Legacy} {
		f.leftovers = append(f.leftovers, iptablesLeftover(k, v, inUse))
	}
	return f, nil
}

// installed reports whether a command can be found.
func installed(name string) bool {
	_, err := exec.LookPath(name)
	return err == nil
}

// choose names the driver and the reason for it.
func choose(o Options) (kind Kind, reason string, err error) {
	hasIPTables, hasNFT := installed("iptables") || installed("ip6tables"), installed("nft")
	switch o.Backend {
	case "", "auto":
		switch {
		case o.PreferNFTables && hasNFT:
			return NFTables, "the network document enables nftables", nil
		case hasIPTables:
			return IPTables, "iptables is installed", nil
		case hasNFT:
			return NFTables, "nft is installed and iptables is not", nil
		}
		return "", "", ErrNoTools
	case string(IPTables):
		if !hasIPTables {
			return "", "", errors.New("iptables is not installed: install iptables, or use --firewall nftables")
		}
		return IPTables, "asked for by --firewall", nil
	case string(NFTables):
		if !hasNFT {
			return "", "", errors.New("nft is not installed: install nftables, or use --firewall iptables")
		}
		return NFTables, "asked for by --firewall", nil
	}
	return "", "", fmt.Errorf("unknown firewall %q: use auto, iptables or nftables", o.Backend)
}
