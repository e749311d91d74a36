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

// Options says which back-end to use.
type Options struct {
	Backend string // "auto" (also ""), "iptables" or "nftables"

	// PreferNFTables makes "auto" take nftables where both are there: the network
	// document's EnableNFTables.
	PreferNFTables bool

	Log zerolog.Logger
}

// ErrNoTools is returned by Open when neither iptables nor nftables is installed.
var ErrNoTools = errors.New("neither iptables nor nft is installed: install iptables or nftables")

// Open chooses the back-end. It changes nothing and needs no closing.
func Open(ctx context.Context, o Options) (*Firewall, error) {
	f := &Firewall{log: o.Log}
	if err := f.choose(o); err != nil {
		return nil, err
	}
	return f, nil
}

// installed reports whether a command can be found.
func installed(name string) bool {
	_, err := exec.LookPath(name)
	return err == nil
}

// choose sets the back-end, and the others that are cleaned up.
func (f *Firewall) choose(o Options) error {
	hasIPTables, hasNFT := installed("iptables") || installed("ip6tables"), installed("nft")
	switch o.Backend {
	case "", "auto":
		switch {
		case o.PreferNFTables && hasNFT:
			f.kind, f.why = NFTables, "the network document enables nftables"
		case hasIPTables:
			f.kind, f.why = IPTables, "iptables is installed"
		case hasNFT:
			f.kind, f.why = NFTables, "nft is installed and iptables is not"
		default:
			return ErrNoTools
		}
	case string(IPTables):
		if !hasIPTables {
			return fmt.Errorf("iptables is not installed: install iptables, or use --firewall nftables")
		}
		f.kind, f.why = IPTables, "asked for"
	case string(NFTables):
		if !hasNFT {
			return fmt.Errorf("nft is not installed: install nftables, or use --firewall iptables")
		}
		f.kind, f.why = NFTables, "asked for"
	default:
		return fmt.Errorf("unknown firewall %q: use auto, iptables or nftables", o.Backend)
	}
	if f.kind == NFTables {
		f.chosen = newNFTables()
		f.others = []remains{iptablesRemains(iptables.NFT), iptablesRemains(iptables.Legacy)}
		return nil
	}
	f.useIPTables()
	return nil
}

// useIPTables sets the back-end; what it left in the variant that a family does not use is
// cleaned up.
func (f *Firewall) useIPTables() {
	e := newIPTables()
	f.chosen = e
	f.others = []remains{nftablesRemains()}
	for _, v := range []iptables.Variant{iptables.NFT, iptables.Legacy} {
		r := iptablesRemains(v)
		find := r.find
		r.find = func(family opt.Family, takeOver bool) (bool, error) {
			there, err := find(family, takeOver)
			if err != nil || !there {
				return false, err
			}
			command, err := e.command[family]()
			return command.Variant != v, err
		}
		f.others = append(f.others, r)
	}
}
