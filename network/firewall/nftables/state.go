// Package nftables makes one family's own nftables table hold given rule lists: it lists
// the table over netlink, compares, and applies what differs as one transaction through
// knftables. It knows nothing of why the rules are as they are.
//
// In the table "loden" of each family every place is a chain that the kernel calls; its one
// rule jumps to a chain named after its content, and that rule's comment holds the scope.
package nftables

import (
	"errors"
	"slices"
	"strings"

	"github.com/loden-net/loden/config/opt"
	"github.com/loden-net/loden/network/firewall/netfilter"
	"github.com/loden-net/loden/network/firewall/rule"
)

// Table is the name of our table, in each family.
const Table = "loden"

// FlannelTable returns the name of flannel's table of a family.
func FlannelTable(f opt.Family) string {
	if f == opt.V6 {
		return "flannel-ipv6"
	}
	return "flannel-ipv4"
}

// State is what our table holds in one family.
type State struct {
	Family     opt.Family
	Generation uint32 // of nf_tables, when it was read
	Exists     bool
	Flannel    bool // flannel's table is there
	dormant    bool // somebody switched the table off
	chains     map[string]chain
}

// chain is one chain with its rules.
type chain struct {
	netfilter.Chain
	rules []netfilter.Rule
}

// Read lists our table. Without nf_tables in the kernel it is empty.
func Read(c *netfilter.Conn, f opt.Family) (State, error) {
	var s State
	generation, err := c.Consistent(func() (err error) {
		s, err = read(c, f)
		return err
	})
	if errors.Is(err, netfilter.ErrAbsent) {
		return State{Family: f}, nil
	}
	s.Generation = generation
	return s, err
}

func read(c *netfilter.Conn, f opt.Family) (State, error) {
	s := State{Family: f, chains: map[string]chain{}}
	tables, err := c.Tables(f)
	if err != nil {
		return s, err
	}
	_, s.Flannel = tables[FlannelTable(f)]
	s.dormant, s.Exists = tables[Table], false
	if _, ok := tables[Table]; !ok {
		return s, nil
	}
	s.Exists = true
	chains, err := c.Chains(f, func(table string) bool { return table == Table })
	if err != nil {
		return s, err
	}
	for _, ch := range chains {
		rules, err := c.Rules(f, Table, ch.Name)
		if err != nil {
			return s, err
		}
		s.chains[ch.Name] = chain{Chain: ch, rules: rules}
	}
	return s, nil
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

// Holding is what was found at one place.
type Holding struct {
	Scope  opt.Option[rule.Scope] // what the rules were made from, where it can be read
	Ours   bool                   // anything of ours is there
	InSync bool                   // it is exactly as wished, as far as comments tell
}

// Compare says what is at a place, compared with a wish.
func (s State) Compare(p rule.Place, want opt.Option[rule.List]) Holding {
	at := placeOf(p)
	hook, hooked := s.chains[at.hook]
	h := Holding{Ours: hooked || len(s.stale(at, nil)) > 0}
	for _, r := range hook.rules {
		if scope := rule.ParseTitle(p, r.Comment); scope.Present() {
			h.Scope = scope
		}
	}
	list, ok := want.Get()
	if !ok {
		h.InSync = !h.Ours
		return h
	}
	chains := at.chainsOf(s.Family, list)
	h.InSync = !s.dormant && hooked && at.fits(hook.Chain) && len(s.stale(at, chains)) == 0
	for _, c := range chains {
		have, ok := s.chains[c.name]
		h.InSync = h.InSync && ok && slices.EqualFunc(have.rules, c.rules, func(r netfilter.Rule, t text) bool {
			return r.Comment == t.comment && r.Target == t.target
		})
	}
	return h
}

// stale returns our content chains at a place that are not wished, sorted.
func (s State) stale(at place, wished []textChain) []string {
	var names []string
	for _, name := range s.names() {
		keep := slices.ContainsFunc(wished, func(c textChain) bool { return c.name == name })
		if !keep && strings.HasPrefix(name, at.prefix) {
			names = append(names, name)
		}
	}
	return names
}

// Refused returns what the guard has refused, in packets, arriving and leaving.
func Refused(c *netfilter.Conn, f opt.Family) (in, out uint64, err error) {
	counters, err := c.Counters(f, Table)
	return counters[placeOf(rule.GuardIn).counter], counters[placeOf(rule.GuardOut).counter], err
}

// Remove removes our table, and flannel's where we take over from it, with no tool but the
// kernel.
func Remove(c *netfilter.Conn, f opt.Family, takeOver bool) error {
	const attempts = 5
	for range attempts {
		s, err := Read(c, f)
		if err != nil {
			return err
		}
		var b netfilter.Batch
		if s.Exists {
			b.DeleteTable(f, Table)
		}
		if s.Flannel && takeOver {
			b.DeleteTable(f, FlannelTable(f))
		}
		if b.Len() == 0 {
			return nil
		}
		if err := c.Commit(&b, s.Generation); !errors.Is(err, netfilter.ErrChanged) {
			return err
		}
	}
	return netfilter.ErrChanged
}

// Concerns reports whether a change of a table may concern us.
func Concerns(table string) bool {
	return table == Table || table == FlannelTable(opt.V4) || table == FlannelTable(opt.V6)
}
