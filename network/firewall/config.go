package firewall

import (
	"fmt"

	"github.com/loden-net/loden/config/opt"
	"github.com/loden-net/loden/config/set"
	"github.com/loden-net/loden/network/firewall/reach"
	"github.com/loden-net/loden/network/firewall/rule"
)

// Config holds the inputs of the rules. It is comparable with == and holds no
// pointer; the zero value desires no rule of Loden's.
type Config struct {
	Masq    opt.Dual[Masquerading] // families that are masqueraded
	Forward opt.Dual[Scope]        // families whose forwarding is accepted
	Guard   Guard

	// Listen is where the handshakes of peers arrive, by family of the underlay. No rule is made from it:
	// Problems judges whether other programs let the handshakes pass.
	Listen opt.Dual[Listening]
}

// Listening is a WireGuard socket.
type Listening = reach.Listening

// Masquerading holds the inputs of the masquerade of a family.
type Masquerading = rule.Masquerading

// Mode says how the guard treats overlay packets outside the tunnel.
type Mode string

// The modes of the guard. The zero value is off.
const (
	Off     Mode = "off"
	Warn    Mode = "warn"    // count only
	Enforce Mode = "enforce" // count and drop
)

func (m Mode) off() bool { return m == "" || m == Off }

// Guard keeps overlay addresses off every interface but the tunnel and the pods' own interfaces. The
// zero value is no guard.
type Guard struct {
	Mode    Mode
	Scopes  opt.Dual[Scope]
	Tunnel  string       // interface name; the interface need not exist yet
	Uplinks set.Names    // interfaces that lead off the node
	Except  set.Prefixes // underlay prefixes inside the overlay network
	Ports   set.Ports    // TCP ports of nodes and of hosts outside that pods may not connect to
}

// desired is the desired rule lists of a family, by place; a place without rules is absent.
type desired map[rule.Place]rule.List

// empty reports whether no rule is desired.
func (d desired) empty() bool { return len(d) == 0 }

// at returns the desired list of a place.
func (d desired) at(p rule.Place) opt.Option[rule.List] {
	if l, ok := d[p]; ok {
		return opt.Some(l)
	}
	return opt.None[rule.List]()
}

// only returns the desired lists of a part.
func (d desired) only(part string) desired {
	out := desired{}
	for _, p := range places(part) {
		if l, ok := d[p]; ok {
			out[p] = l
		}
	}
	return out
}

// scope returns the scope of the first list of a part.
func (d desired) scope(part string) opt.Option[Scope] {
	for _, p := range places(part) {
		if l, ok := d[p]; ok {
			return opt.Some(l.Scope)
		}
	}
	return opt.None[Scope]()
}

// sum stands for the lists: equal lists have equal sums.
func (d desired) sum() string {
	var text string
	for _, p := range rule.Places() {
		if l, ok := d[p]; ok {
			text += fmt.Sprint(p, " ", l.Sum(), " ")
		}
	}
	return text
}

// empty reports whether the configuration desires no rule in a family. It makes no rule to find out.
func (c Config) empty(f opt.Family) bool {
	guarded := !c.Guard.Mode.off() && c.Guard.Scopes.Of(f).Present()
	return !c.Masq.Of(f).Present() && !c.Forward.Of(f).Present() && !guarded
}

// desired makes the rules of a family.
func (c Config) desired(f opt.Family) desired {
	d := desired{}
	masq := c.Masq.Of(f)
	if m, ok := masq.Get(); ok {
		d[rule.Postrouting] = rule.Postroute(m)
	}
	if s, ok := c.Forward.Of(f).Get(); ok {
		d[rule.Forward] = rule.ForwardAccept(s)
	}
	if s, ok := c.Guard.Scopes.Of(f).Get(); ok && !c.Guard.Mode.off() {
		for _, l := range rule.GuardLists(rule.Guarding{
			Scope:   s,
			Tunnel:  c.Guard.Tunnel,
			Uplinks: c.Guard.Uplinks,
			Except:  c.Guard.Except,
			Ports:   c.Guard.Ports,
			Exclude: masq.Or(Masquerading{}).Exclude,
			Routed:  !masq.Present(),
			Enforce: c.Guard.Mode == Enforce,
		}) {
			d[l.Place] = l
		}
	}
	return d
}

// check refuses a configuration that no rules can be made from: a zero prefix, or a prefix of the
// other family, must not become a rule for every packet (flannel issue 1906).
func (c Config) check(f opt.Family) error {
	scopes := map[string]opt.Option[Scope]{
		"forward": c.Forward.Of(f),
		"guard":   c.Guard.Scopes.Of(f),
	}
	if m, ok := c.Masq.Of(f).Get(); ok {
		scopes["masquerade"] = opt.Some(m.Scope)
	}
	for part, scope := range scopes {
		if s, ok := scope.Get(); ok && (!s.Valid() || s.Family() != f) {
			return fmt.Errorf("make %s %s rules: subnet %s is not a part of network %s", f, part, s.Subnet, s.Network)
		}
	}
	if c.Guard.Mode.off() || c.Guard.Scopes.IsZero() {
		return nil
	}
	if c.Guard.Mode != Warn && c.Guard.Mode != Enforce {
		return fmt.Errorf("make guard: mode %q is unknown: use enforce, warn or off", c.Guard.Mode)
	}
	if c.Guard.Tunnel == "" {
		return fmt.Errorf("make guard: the tunnel interface has no name")
	}
	return nil
}
