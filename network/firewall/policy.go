package firewall

import (
	"net/netip"

	"github.com/loden-net/loden/config/opt"
	"github.com/loden-net/loden/config/set"
	"github.com/loden-net/loden/network/firewall/rule"
)

// Policy holds the node's settings of the firewall; the scopes are not known yet.
// The zero value desires no rule.
type Policy struct {
	Masq        bool         // --ip-masq
	IPv6Masq    IPv6Masq     // --ipv6-masq
	Exclude     set.Prefixes // --masq-exclude
	RandomFully bool         // --random-fully
	Mark        Mark         // of packets that kube-proxy masquerades; zero takes its default
	Forward     bool         // --iptables-forward-rules
	Guard       Mode         // --guard
	Uplinks     set.Names    // interfaces that lead off the node, once they are known
	Ports       set.Ports    // --guard-ports
	Except      set.Prefixes // underlay prefixes; prefixes outside the overlay do not matter
}

// IPv6Masq says which IPv6 networks are masqueraded when masquerading is on at all.
type IPv6Masq string

// The choices. The zero value is MasqAuto.
const (
	MasqAuto   IPv6Masq = "auto" // unique-local networks only: global networks have a way back
	MasqAlways IPv6Masq = "always"
	MasqNever  IPv6Masq = "never"
)

// Config applies the policy to the node's scopes. Tunnel is the name of the interface that
// overlay packets may use; it need not exist yet.
func (p Policy) Config(tunnel string, scopes opt.Dual[Scope]) Config {
	var c Config
	for f, s := range scopes.All() {
		if p.masquerades(f, s.Network) {
			c.Masq = c.Masq.With(f, Masquerading{
				Scope:       s,
				Exclude:     p.Exclude,
				RandomFully: p.RandomFully,
				Mark:        p.mark(),
			})
		}
	}
	if p.Forward {
		c.Forward = scopes
	}
	if !p.Guard.off() && scopes.Len() > 0 {
		c.Guard = Guard{Mode: p.Guard, Scopes: scopes, Tunnel: tunnel, Uplinks: p.Uplinks, Except: inside(p.Except, scopes), Ports: p.Ports}
	}
	return c
}

func (p Policy) masquerades(f opt.Family, network netip.Prefix) bool {
	switch {
	case !p.Masq:
		return false
	case f == opt.V4 || p.IPv6Masq == MasqAlways:
		return true
	case p.IPv6Masq == MasqNever:
		return false
	}
	return rule.Private(network)
}

func (p Policy) mark() Mark {
	if p.Mark == (Mark{}) {
		return rule.KubeProxyMark()
	}
	return p.Mark
}

// inside keeps the underlay prefixes that lie inside an overlay network. A prefix that contains
// the network is no exception from it but a mistake elsewhere.
func inside(all set.Prefixes, scopes opt.Dual[Scope]) set.Prefixes {
	var kept []netip.Prefix
	for f, s := range scopes.All() {
		for p := range all.Of(f) {
			if p.Bits() > s.Network.Bits() && s.Network.Contains(p.Addr()) {
				kept = append(kept, p)
			}
		}
	}
	return set.NewPrefixes(kept...)
}
