package subnet

import (
	"net/netip"
	"slices"
	"time"

	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"github.com/loden-net/loden/config/opt"
)

// Guard holds back the sudden disappearance of many leases: an emptied etcd, a slip of
// `etcdctl del --prefix`, a backup restored without the last week. It is a state machine
// without a clock; each method returns the next state. The zero Guard holds nothing back
// for any time: set Hold.
//
//	         few gone, or released            more than max(3, 20 %) gone within Step
//	quiet ------------------------> quiet ------------------------------------------> holding
//	holding --- back again, or their subnet, name or key is another lease's now ---> quiet
//	holding --- Hold has passed, or Confirm ---> gone
type Guard struct {
	Hold time.Duration // how long leases that vanished are held

	shown  []Lease // as last returned
	recent []gone  // let go within the last Step
	held   []gone  // held back
}

// gone is a lease and when it was seen to be gone.
type gone struct {
	lease Lease
	at    time.Time
}

// Step is how far apart removals still count as one: etcd ends leases that run out at one
// moment over some seconds.
const Step = 10 * time.Second

// StartGuard returns a guard that has shown leases, such as those saved before a reboot.
func StartGuard(hold time.Duration, shown []Lease) Guard {
	return Guard{Hold: hold, shown: slices.Clone(shown)}
}

// Next takes a snapshot at a time and returns what to act on: the snapshot, and with it
// the leases that are held. Every snapshot must pass, in order; the same one may pass
// again to let time act.
func (g Guard) Next(now time.Time, s Snapshot) (Guard, Snapshot) {
	seen := index(s.Leases)
	recent := slices.Concat(g.recent, g.missing(now, s, seen))
	g.recent = slices.DeleteFunc(recent, func(e gone) bool { return now.Sub(e.at) >= Step || seen.replaces(e.lease) })
	g.held = slices.DeleteFunc(slices.Clone(g.held), func(e gone) bool { return now.Sub(e.at) >= g.Hold || seen.replaces(e.lease) })
	total := len(s.Leases) + len(g.recent) + len(g.held)
	if len(g.held) > 0 || len(g.recent) > max(3, total/5) {
		g.held, g.recent = append(g.held, g.recent...), nil
	}
	out := s
	out.Leases = slices.Clone(s.Leases)
	for _, e := range g.held {
		out.Leases = append(out.Leases, e.lease)
	}
	slices.SortFunc(out.Leases, Older)
	g.shown = out.Leases
	return g, out
}

// missing returns what was shown, is not in s, was not released, and is not held already.
func (g Guard) missing(now time.Time, s Snapshot, seen known) []gone {
	if len(g.shown) == len(s.Leases) && slices.Equal(g.shown, s.Leases) {
		return nil
	}
	for _, leaf := range s.Released {
		if subnets, err := ParseKey(leaf); err == nil {
			seen.leases[subnets] = true
		}
	}
	for _, e := range g.held {
		seen.leases[e.lease.Subnets] = true
	}
	var out []gone
	for _, l := range g.shown {
		if !l.Leaving && !seen.leases[l.Subnets] {
			out = append(out, gone{l, now})
		}
	}
	return out
}

// known is what a snapshot speaks of.
type known struct {
	leases  map[opt.Dual[netip.Prefix]]bool
	subnets map[netip.Prefix]bool
	names   map[string]bool
	keys    map[wgtypes.Key]bool
}

func index(leases []Lease) known {
	k := known{
		leases: make(map[opt.Dual[netip.Prefix]]bool, len(leases)), subnets: make(map[netip.Prefix]bool, 2*len(leases)),
		names: make(map[string]bool, len(leases)), keys: make(map[wgtypes.Key]bool, len(leases)),
	}
	for _, l := range leases {
		k.leases[l.Subnets], k.names[l.Node], k.keys[l.Key] = true, true, true
		for _, p := range l.Subnets.All() {
			k.subnets[p] = true
		}
	}
	delete(k.names, "")
	return k
}

// replaces reports whether the store now says something newer about a lease's subnets,
// node or key: the old word then ends.
func (k known) replaces(l Lease) bool {
	for _, p := range l.Subnets.All() {
		if k.subnets[p] {
			return true
		}
	}
	return k.names[l.Node] || k.keys[l.Key]
}

// Held returns the leases that are held back and when the first of them will be let go;
// the zero time when there is none.
func (g Guard) Held() ([]Lease, time.Time) {
	var out []Lease
	var until time.Time
	for _, e := range g.held {
		out = append(out, e.lease)
		if t := e.at.Add(g.Hold); until.IsZero() || t.Before(until) {
			until = t
		}
	}
	return out, until
}

// Confirm lets go of everything that is held, as an operator's word. What is shown changes
// with the next call of Next.
func (g Guard) Confirm() Guard {
	lost := g.held
	g.held, g.recent = nil, nil
	g.shown = slices.DeleteFunc(slices.Clone(g.shown), func(l Lease) bool {
		return slices.ContainsFunc(lost, func(e gone) bool { return e.lease == l })
	})
	return g
}
