package firewall

import (
	"context"
	"errors"
	"fmt"
	"os/exec"

	"github.com/rs/zerolog"

	"github.com/loden-net/loden/config/opt"
	"github.com/loden-net/loden/network/firewall/iptables"
)

// Options says which driver to use.
type Options struct {
	Backend string // "auto" (also ""), "iptables" or "nftables": the value of --firewall

	// PreferNFTables makes "auto" take nftables where both are installed: the network document's
	// EnableNFTables.
	PreferNFTables bool

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
	f := &Firewall{log: o.Log, kind: kind, reason: reason}
	if kind == NFTables {
		f.chosen = newNFTables()
		f.leftovers = []leftover{iptablesLeftover(iptables.NFT), iptablesLeftover(iptables.Legacy)}
		return f, nil
	}
	f.useIPTables()
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

// useIPTables sets the driver to iptables. Rules of an earlier run in the variant that a family does
// not use are cleaned up.
func (f *Firewall) useIPTables() {
	d := newIPTables()
	f.chosen = d
	f.leftovers = []leftover{nftablesLeftover()}
	for _, v := range []iptables.Variant{iptables.NFT, iptables.Legacy} {
		l := iptablesLeftover(v)
		find := l.find
		l.find = func(family opt.Family, takeOver bool) (bool, error) {
			found, err := find(family, takeOver)
			if err != nil || !found {
				return false, err
			}
			command, err := d.command[family]()
			return command.Variant != v, err
		}
		f.leftovers = append(f.leftovers, l)
	}
}
