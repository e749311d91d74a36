// Package nftables makes the daemon's nftables table of one family agree with given rule lists: it lists
// the table over netlink, compares, and applies the difference as a transaction through knftables. It
// must not know the reason for a rule.
//
// In the table ("loden", or "loden-wg7" for the interface wg7) every place is a base chain, the anchor.
// Its only rule jumps to a chain that is named after its rules, and the comment of that rule holds the
// scope.
package nftables

import (
	"errors"
	"net/netip"
	"slices"
	"strings"

	"github.com/loden-net/loden/config/opt"
	"github.com/loden-net/loden/network/firewall/netfilter"
	"github.com/loden-net/loden/network/firewall/rule"
)

// FlannelTable returns the name of flannel's table of a family.
func FlannelTable(f opt.Family) string {
	if f == opt.V6 {
		return "flannel-ipv6"
	}
	return "flannel-ipv4"
}

// State is the content of the daemon's table in a family.
type State struct {
	Owner      rule.Owner
	Family     opt.Family
	Generation uint32 // of nf_tables, when it was read
	Exists     bool
	Flannel    bool // flannel's table is there
	dormant    bool // another program switched the table off
	chains     map[string]chain
	others     map[string]opt.Option[rule.Scope] // tables of other Loden daemons, and their scopes
}

// chain is a chain with its rules.
type chain struct {
	netfilter.Chain
	rules []netfilter.Rule
}

// Read lists the daemon's table. Without nf_tables in the kernel it is empty.
func Read(c *netfilter.Conn, o rule.Owner, f opt.Family) (State, error) {
	var s State
	generation, err := c.Consistent(func() (err error) {
		s, err = read(c, o, f)
		return err
	})
	if errors.Is(err, netfilter.ErrAbsent) {
		return State{Owner: o, Family: f}, nil
	}
	s.Generation = generation
	return s, err
}

func read(c *netfilter.Conn, o rule.Owner, f opt.Family) (State, error) {
	s := State{Owner: o, Family: f, chains: map[string]chain{}, others: map[string]opt.Option[rule.Scope]{}}
	tables, err := c.Tables(f)
	if err != nil {
		return s, err
	}
	_, s.Flannel = tables[FlannelTable(f)]
	s.dormant, s.Exists = tables[o.Table()]
	chains, err := c.Chains(f, daemonTable)
	if err != nil {
		return s, err
	}
	for _, ch := range chains {
		own := ch.Table == o.Table()
		if !own && ch.Type == "" {
			continue // the scope of another daemon is in its anchors
		}
		rules, err := c.Rules(f, ch.Table, ch.Name)
		switch {
		case err != nil:
			return s, err
		case own:
			s.chains[ch.Name] = chain{Chain: ch, rules: rules}
		default:
			s.others[ch.Table] = opt.Some(scopeAt(ch.Name, rules).Or(s.others[ch.Table].Or(rule.Scope{})))
		}
	}
	return s, nil
}

// daemonTable reports whether a table has the name of a Loden daemon's table.
func daemonTable(name string) bool {
	return name == rule.Owner{}.Table() || strings.HasPrefix(name, rule.Owner{}.Table()+"-")
}

// scopeAt reads the scope from the rules of an anchor.
func scopeAt(anchor string, rules []netfilter.Rule) opt.Option[rule.Scope] {
	scope := opt.None[rule.Scope]()
	for _, p := range rule.Places() {
		if slotOf(p).anchor != anchor {
			continue
		}
		for _, r := range rules {
			if s := rule.ParseTitle(p, r.Comment); s.Present() {
				scope = s
			}
		}
	}
	return scope
}

// Replaced returns the tables of other daemons with rules for the same network, sorted: of this daemon
// under an earlier interface name, or of a version that gave every interface's rules the same names.
// Daemons of other networks are left alone.
func (s State) Replaced(network netip.Prefix) []string {
	var names []string
	for name, scope := range s.others {
		if other, ok := scope.Get(); ok && other.Network.IsValid() && other.Network.Overlaps(network) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// Fingerprint returns a text that differs when the state does, counters apart.
func (s State) Fingerprint() string {
	var b strings.Builder
	for _, name := range s.names() {
		c := s.chains[name]
		b.WriteString(name + "\x00" + c.Type + "\x00")
		for _, r := range c.rules {
			b.WriteString(r.Comment + "\x00" + r.Content + "\x00")
		}
	}
	return b.String()
}

// names returns the names of all chains, sorted.
func (s State) names() []string {
	var names []string
	for name := range s.chains {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// Holding is the result of a comparison at a place.
type Holding struct {
	Scope  opt.Option[rule.Scope] // the scope of the rules, where it can be read
	Ours   bool                   // anything of ours is there
	InSync bool                   // it is exactly as desired, as far as comments tell
}

// Compare compares the rules of a place in the kernel with the desired list.
func (s State) Compare(p rule.Place, want opt.Option[rule.List]) Holding {
	at := slotOf(p)
	anchor, hooked := s.chains[at.anchor]
	h := Holding{Ours: hooked || len(s.stale(at, nil)) > 0, Scope: scopeAt(at.anchor, anchor.rules)}
	list, ok := want.Get()
	if !ok {
		h.InSync = !h.Ours
		return h
	}
	chains := at.chainsOf(s.Family, list)
	h.InSync = !s.dormant && hooked && at.fits(anchor.Chain) && len(s.stale(at, chains)) == 0
	for _, c := range chains {
		have, ok := s.chains[c.name]
		h.InSync = h.InSync && ok && slices.EqualFunc(have.rules, c.rules, func(r netfilter.Rule, t text) bool {
			return r.Comment == t.comment && r.Target == t.target
		})
	}
	return h
}

// stale returns the chains of a slot that are not desired, sorted.
func (s State) stale(at slot, desired []textChain) []string {
	var names []string
	for _, name := range s.names() {
		keep := slices.ContainsFunc(desired, func(c textChain) bool { return c.name == name })
		if !keep && strings.HasPrefix(name, at.prefix) {
			names = append(names, name)
		}
	}
	return names
}

// Refused returns the packets that the guard has refused, arriving and leaving.
func Refused(c *netfilter.Conn, o rule.Owner, f opt.Family) (in, out uint64, err error) {
	tables, err := c.Tables(f)
	if _, ok := tables[o.Table()]; err != nil || !ok {
		return 0, 0, err
	}
	counters, err := c.Counters(f, o.Table())
	return counters[slotOf(rule.GuardIn).counter], counters[slotOf(rule.GuardOut).counter], err
}

// Remove removes the daemon's table, and flannel's where Loden takes over from it. It starts no process.
func Remove(c *netfilter.Conn, o rule.Owner, f opt.Family, takeOver bool) error {
	const attempts = 5
	for range attempts {
		s, err := Read(c, o, f)
		if err != nil {
			return err
		}
		var b netfilter.Batch
		if s.Exists {
			b.DeleteTable(f, o.Table())
		}
		if s.Flannel && takeOver {
			b.DeleteTable(f, FlannelTable(f))
		}
		if b.Len() == 0 {
			return nil
		}
		if err := b.Commit(s.Generation); !errors.Is(err, netfilter.ErrChanged) {
			return err
		}
	}
	return netfilter.ErrChanged
}

// Concerns reports whether a change of a table may concern a daemon.
func Concerns(o rule.Owner, table string) bool {
	return table == o.Table() || table == FlannelTable(opt.V4) || table == FlannelTable(opt.V6)
}
