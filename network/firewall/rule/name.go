package rule

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// DefaultTunnel is the name of the tunnel interface whose daemon's rules carry the plain names.
const DefaultTunnel = "loden0"

// Owner says which daemon of this host a rule belongs to: several daemons may run on one host, each with
// its own network and tunnel interface. The zero value is the daemon of the default interface. It is
// comparable with ==.
type Owner struct{ tunnel string } // empty for the default interface

// OwnerOf returns the owner of the rules of a daemon by the name of its tunnel interface; the empty name
// stands for the default interface.
func OwnerOf(tunnel string) Owner {
	if tunnel == DefaultTunnel {
		return Owner{}
	}
	return Owner{tunnel: tunnel}
}

// Default reports whether the owner is the daemon of the default interface.
func (o Owner) Default() bool { return o.tunnel == "" }

// Tunnel returns the name of the owner's tunnel interface.
func (o Owner) Tunnel() string {
	if o.Default() {
		return DefaultTunnel
	}
	return o.tunnel
}

// nftName matches interface names that may stand in the name of an nftables table as they are.
var nftName = regexp.MustCompile(`^[A-Za-z0-9_.-]+$`)

// Table returns the name of the owner's nftables table: "loden", or "loden-wg7" for the interface wg7.
func (o Owner) Table() string {
	switch {
	case o.Default():
		return "loden"
	case nftName.MatchString(o.tunnel):
		return "loden-" + o.tunnel
	}
	return "loden-" + o.digits()
}

// ChainPrefix starts the name of every iptables chain of the owner: "LODEN-", or "LDN3f9a1-" with five
// digits that stand for the interface name, which is too long for the name of a chain.
func (o Owner) ChainPrefix() string {
	if o.Default() {
		return "LODEN-"
	}
	return "LDN" + o.digits() + "-"
}

func (o Owner) digits() string {
	sum := sha256.Sum256([]byte(o.tunnel))
	return hex.EncodeToString(sum[:])[:5]
}

// Mark returns the comment of the jump from the kernel's chain to the owner's rules at a place.
func (o Owner) Mark(p Place) string {
	if o.Default() {
		return p.title()
	}
	return p.title() + " of " + o.tunnel
}

// SumDigits is the number of digits of List.Sum.
const SumDigits = 10

// Sum returns hexadecimal digits that stand for the list's rules: the same rules give the same digits on
// every node and in every version. The form of the text that is summed must not change: after an
// upgrade the rules would be replaced for no reason.
func (l List) Sum() string {
	h := sha256.New()
	fmt.Fprintf(h, "%v %v\n", l.Place, l.Scope)
	for _, c := range l.Chains {
		fmt.Fprintf(h, "%q\n", c.Name)
		for _, r := range c.Rules {
			fmt.Fprintf(h, "{InIface:%s OutIface:%s Src:%+v Dst:%+v Mark:%+v Translated:%t Verdict:%d Chain:%s Why:%s}\n",
				r.InIface, r.OutIface, r.Src, r.Dst, r.Mark, r.Translated, r.Verdict, r.Chain, r.Comment)
			if r.TCP != 0 || r.Local {
				fmt.Fprintf(h, "{TCP:%d Local:%t}\n", r.TCP, r.Local)
			}
		}
	}
	return hex.EncodeToString(h.Sum(nil))[:SumDigits]
}

// Named returns the chains with their names in the kernel, made from prefix and the first digits of the
// sum, and Goto targets renamed alike. The entry comes last, so that every target exists before a rule
// names it.
func (l List) Named(prefix string, digits int) []Chain {
	sum := l.Sum()[:digits]
	named := func(name string) string {
		if name == "" {
			return prefix + sum
		}
		return prefix + sum + "-" + name
	}
	out := make([]Chain, 0, len(l.Chains))
	for _, c := range l.Chains {
		n := Chain{Name: named(c.Name), Rules: slices.Clone(c.Rules)}
		for i, r := range n.Rules {
			if r.Verdict == Goto {
				n.Rules[i].Chain = named(r.Chain)
			}
		}
		out = append(out, n)
	}
	slices.Reverse(out)
	return out
}

// refused starts the comment of every rule that refuses packets, so that its counter can be found
// without the configuration that the rule was made from.
const refused = "loden refused: "

// Refuses reports whether a rule with this comment counts refused packets.
func Refuses(comment string) bool { return strings.HasPrefix(comment, refused) }
