package subnet

import (
	"net/netip"
	"slices"
	"time"

	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"github.com/loden-net/loden/config/opt"
)

// RemovalHold holds back the sudden disappearance of many leases: an emptied etcd, a slip of
// `etcdctl del --prefix`, a backup restored without the last week. It is a state machine
// without a clock; each method returns the next state. The zero RemovalHold holds removals
// back for no time at all: set Hold.
//
//	         few removed                      more than max(3, 20 %) removed within Step
//	quiet ------------------------> quiet ------------------------------------------> holding
//	holding --- leases back, or their subnet, name or key in a newer lease ---> quiet
//	holding --- Hold has passed, or Confirm ---> removed
//
// A lease that its node gives back (Lease.Leaving) is removed at once also while other leases
// are held, but it counts: any writer of the store can mark leases so, and would empty a
// cluster past the hold otherwise.
type RemovalHold struct {
	Hold time.Duration // how long vanished leases are held

	shown  []Lease   // the leases that Next returned last
	recent []removal // removals that were let through within the last Step
	left   []removal // the same of leases that were given back
	held   []removal // removals that are held back
}

// removal is a lease that the store no longer has, and when the hold first saw that.
type removal struct {
	lease Lease
	at    time.Time
}

// Step is the time within which removals count as a single event: etcd ends leases that run
// out at the same moment over some seconds.
const Step = 10 * time.Second

// NewRemovalHold returns a hold that has already shown leases, for example the leases that
// were saved on disk before a reboot.
func NewRemovalHold(hold time.Duration, shown []Lease) RemovalHold {
	return RemovalHold{Hold: hold, shown: slices.Clone(shown)}
}

// Next takes the next snapshot of the store and returns the snapshot to act on: the same
// leases, and the held leases beside them. Every snapshot must pass, in order; the same
// snapshot may pass again so that elapsed time has its effect.
func (h RemovalHold) Next(now time.Time, s Snapshot) (RemovalHold, Snapshot) {
	stored := index(s.Leases)
	vanished, left := h.missing(now, s, stored)
	past := func(r removal) bool { return now.Sub(r.at) >= Step || stored.replaces(r.lease) }
	h.recent = slices.DeleteFunc(slices.Concat(h.recent, vanished), past)
	h.left = slices.DeleteFunc(slices.Concat(h.left, left), past)
	h.held = slices.DeleteFunc(slices.Clone(h.held), func(r removal) bool { return now.Sub(r.at) >= h.Hold || stored.replaces(r.lease) })
	total := len(s.Leases) + len(h.recent) + len(h.left) + len(h.held)
	many := len(h.recent)+len(h.left) > max(3, total/5)
	if many || len(h.held) > 0 {
		h.held, h.recent = append(h.held, h.recent...), nil
	}
	if many {
		h.held, h.left = append(h.held, h.left...), nil
	}
	out := s
	out.Leases = slices.Clone(s.Leases)
	for _, r := range h.held {
		out.Leases = append(out.Leases, r.lease)
	}
	slices.SortFunc(out.Leases, Older)
	h.shown = out.Leases
	return h, out
}

// missing returns the leases that were shown, are absent from s, and are not held already:
// the leases that vanished, and the leases that their nodes gave back.
func (h RemovalHold) missing(now time.Time, s Snapshot, stored leaseIndex) (vanished, left []removal) {
	if len(h.shown) == len(s.Leases) && slices.Equal(h.shown, s.Leases) {
		return nil, nil
	}
	released := map[opt.Dual[netip.Prefix]]bool{}
	for _, key := range s.Released {
		if subnets, err := ParseKey(key); err == nil {
			released[subnets] = true
		}
	}
	for _, r := range h.held {
		stored.leases[r.lease.Subnets] = true
	}
	for _, l := range h.shown {
		switch {
		case stored.leases[l.Subnets]:
		case l.Leaving || released[l.Subnets]:
			left = append(left, removal{l, now})
		default:
			vanished = append(vanished, removal{l, now})
		}
	}
	return vanished, left
}

// leaseIndex finds the leases of a snapshot by subnets, node name and key.
type leaseIndex struct {
	leases  map[opt.Dual[netip.Prefix]]bool
	subnets map[netip.Prefix]bool
	names   map[string]bool
	keys    map[wgtypes.Key]bool
}

func index(leases []Lease) leaseIndex {
	x := leaseIndex{
		leases: make(map[opt.Dual[netip.Prefix]]bool, len(leases)), subnets: make(map[netip.Prefix]bool, 2*len(leases)),
		names: make(map[string]bool, len(leases)), keys: make(map[wgtypes.Key]bool, len(leases)),
	}
	for _, l := range leases {
		x.leases[l.Subnets], x.names[l.Node], x.keys[l.Key] = true, true, true
		for _, p := range l.Subnets.All() {
			x.subnets[p] = true
		}
	}
	delete(x.names, "")
	return x
}

// replaces reports whether the store has a newer lease with a subnet, the node or the key
// of l: then l is out of date and is held no longer.
func (x leaseIndex) replaces(l Lease) bool {
	for _, p := range l.Subnets.All() {
		if x.subnets[p] {
			return true
		}
	}
	return x.names[l.Node] || x.keys[l.Key]
}

// Held returns the leases that are held back, and when the first of them is let go: the
// zero time when no lease is held.
func (h RemovalHold) Held() ([]Lease, time.Time) {
	var out []Lease
	var until time.Time
	for _, r := range h.held {
		out = append(out, r.lease)
		if t := r.at.Add(h.Hold); until.IsZero() || t.Before(until) {
			until = t
		}
	}
	return out, until
}

// Confirm lets go of all held leases, by the operator's command. The next call of Next
// returns a snapshot without them.
func (h RemovalHold) Confirm() RemovalHold {
	confirmed := h.held
	h.held, h.recent, h.left = nil, nil, nil
	h.shown = slices.DeleteFunc(slices.Clone(h.shown), func(l Lease) bool {
		return slices.ContainsFunc(confirmed, func(r removal) bool { return r.lease == l })
	})
	return h
}
