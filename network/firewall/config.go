package firewall

import (
	"fmt"

	"github.com/loden-net/loden/config/opt"
	"github.com/loden-net/loden/network/firewall/rule"
)

// Config is everything the firewall should hold. It is comparable with == and holds no
// pointer; the zero value means nothing of ours.
type Config struct {
	Masq    opt.Dual[Masquerading] `json:"masq,omitzero"`    // families that are masqueraded
	Forward opt.Dual[Scope]        `json:"forward,omitzero"` // families whose forwarding is accepted
	Guard   Guard                  `json:"guard,omitzero"`
}

// Masquerading is everything the masquerade of one family depends on.
type Masquerading = rule.Masquerading

// Mode is what the guard does with overlay packets outside the tunnel.
type Mode string

// The modes of the guard. The zero value is off.
const (
	Off     Mode = "off"
	Warn    Mode = "warn"    // count only
	Enforce Mode = "enforce" // count and drop
)

func (m Mode) off() bool { return m == "" || m == Off }

// Guard keeps overlay addresses off every interface but the tunnel and the pods' own. The
// zero value is no guard.
type Guard struct {
	Mode    Mode            `json:"mode,omitempty"`
	Scopes  opt.Dual[Scope] `json:"scopes,omitzero"`
	Tunnel  string          `json:"tunnel,omitempty"` // interface name; it need not exist yet
	Uplinks Names           `json:"uplinks,omitzero"` // interfaces that lead off the node
	Except  Prefixes        `json:"except,omitzero"`  // underlay prefixes inside the overlay network
}

// wish is what one family should hold, by place.
type wish [4]opt.Option[rule.List]

// empty reports whether nothing is wished.
func (w wish) empty() bool {
	for _, l := range w {
		if l.Present() {
			return false
		}
	}
	return true
}

// wants reports whether the family should hold anything.
func (c Config) wants(f opt.Family) bool { return !c.wish(f).empty() }

// wish makes the rules of one family.
func (c Config) wish(f opt.Family) wish {
	var w wish
	masq := c.Masq.Of(f)
	if m, ok := masq.Get(); ok {
		w[rule.Postrouting] = opt.Some(rule.Postroute(m))
	}
	if s, ok := c.Forward.Of(f).Get(); ok {
		w[rule.Forward] = opt.Some(rule.ForwardAccept(s))
	}
	if s, ok := c.Guard.Scopes.Of(f).Get(); ok && !c.Guard.Mode.off() {
		for _, l := range rule.GuardLists(rule.Guarding{
			Scope:   s,
			Tunnel:  c.Guard.Tunnel,
			Uplinks: c.Guard.Uplinks,
			Except:  c.Guard.Except,
			Exclude: masq.Or(Masquerading{}).Exclude,
			Routed:  !masq.Present(),
			Enforce: c.Guard.Mode == Enforce,
		}) {
			w[l.Place] = opt.Some(l)
		}
	}
	return w
}

// check refuses a configuration that no rules can be made from: a zero or foreign prefix
// must not become a rule for everything (flannel issue 1906).
func (c Config) check(f opt.Family) error {
	scopes := map[string]opt.Option[Scope]{
		"forward": c.Forward.Of(f),
		"guard":   c.Guard.Scopes.Of(f),
	}
	if m, ok := c.Masq.Of(f).Get(); ok {
		scopes["masquerade"] = opt.Some(m.Scope)
	}
	for what, scope := range scopes {
		if s, ok := scope.Get(); ok && (!s.Valid() || s.Family() != f) {
			return fmt.Errorf("make %s %s rules: subnet %s is not a part of network %s", f, what, s.Subnet, s.Network)
		}
	}
	if c.Guard.Mode.off() || c.Guard.Scopes.IsZero() {
		return nil
	}
	if c.Guard.Mode != Warn && c.Guard.Mode != Enforce {
		return fmt.Errorf("make guard: unknown mode %q", c.Guard.Mode)
	}
	if c.Guard.Tunnel == "" {
		return fmt.Errorf("make guard: no tunnel interface named")
	}
	return nil
}
