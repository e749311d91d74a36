package subnet

import (
	"net/netip"
	"slices"
	"time"

	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"github.com/loden-net/loden/config/opt"
	"github.com/loden-net/loden/config/sorted"
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

	stored Leases    // of the last snapshot, or of the disk copy before the first
	shown  Leases    // the leases that Next returned last: stored, and the held leases
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
func NewRemovalHold(hold time.Duration, shown Leases) RemovalHold {
	return RemovalHold{Hold: hold, stored: shown, shown: shown}
}

// Next takes the next snapshot of the store and returns the snapshot to act on: the same
// leases, and the held leases beside them. Every snapshot must pass, in order; the same
// snapshot may pass again so that elapsed time has its effect. It costs what has changed since
// the last snapshot; after a removal it also looks at every lease once.
func (h RemovalHold) Next(now time.Time, s Snapshot) (RemovalHold, Snapshot) {
	vanished, left, newer := h.missing(now, s)
	past := func(r removal) bool { return now.Sub(r.at) >= Step || newer.replaces(r.lease) }
	next := RemovalHold{Hold: h.Hold, stored: s.Leases}
	next.recent, _ = split(append(slices.Clip(h.recent), vanished...), past)
	next.left, _ = split(append(slices.Clip(h.left), left...), past)
	var released []removal
	next.held, released = split(h.held, func(r removal) bool { return now.Sub(r.at) >= h.Hold || newer.replaces(r.lease) })
	total := s.Leases.Len() + len(next.recent) + len(next.left) + len(next.held)
	many := len(next.recent)+len(next.left) > max(3, total/5)
	if many || len(next.held) > 0 {
		next.held, next.recent = append(slices.Clip(next.held), next.recent...), nil
	}
	if many {
		next.held, next.left = append(next.held, next.left...), nil
	}
	next.shown = h.show(s.Leases, released, next.held)
	out := s
	out.Leases = next.shown
	return next, out
}

// split returns the removals without those that drop names, and those. It changes no slice.
func split(removals []removal, drop func(removal) bool) (kept, dropped []removal) {
	if !slices.ContainsFunc(removals, drop) {
		return removals, nil
	}
	for _, r := range removals {
		if drop(r) {
			dropped = append(dropped, r)
		} else {
			kept = append(kept, r)
		}
	}
	return kept, dropped
}

// show returns the stored leases with the held leases beside them. It starts from the leases
// that were shown last, because thousands of leases may be held.
func (h RemovalHold) show(stored Leases, released, held []removal) Leases {
	if len(held) == 0 {
		return stored
	}
	out := h.shown
	for _, r := range released {
		out = out.Without(r.lease)
	}
	for c := range sorted.Diff(h.stored, stored) {
		if l, ok := c.After.Get(); ok {
			out = out.With(l)
		} else if l, ok := c.Before.Get(); ok {
			out = out.Without(l)
		}
	}
	for _, r := range held {
		out = out.With(r.lease)
	}
	return out
}

// missing returns the leases that the last snapshot had and s has not: the leases that
// vanished, and the leases that their nodes gave back. newer finds the leases of s that may
// replace a lease: those that came with s, and those that share a subnet, name or key with a
// missing lease. The other leases of s were compared with the earlier removals before.
func (h RemovalHold) missing(now time.Time, s Snapshot) (vanished, left []removal, newer leaseIndex) {
	var gone []Lease
	newer = index()
	for c := range sorted.Diff(h.stored, s.Leases) {
		if l, ok := c.After.Get(); ok {
			newer.add(l)
		} else if l, ok := c.Before.Get(); ok {
			gone = append(gone, l)
		}
	}
	gone = slices.DeleteFunc(gone, func(l Lease) bool { return newer.leases[l.Subnets] }) // claimed anew
	if len(gone) == 0 {
		return nil, nil, newer
	}
	released := map[opt.Dual[netip.Prefix]]bool{}
	for _, key := range s.Released {
		if subnets, err := ParseKey(key); err == nil {
			released[subnets] = true
		}
	}
	old := index(gone...)
	for l := range s.Leases.All() {
		if old.replaces(l) {
			newer.add(l)
		}
	}
	for _, l := range gone {
		if l.Leaving || released[l.Subnets] {
			left = append(left, removal{l, now})
		} else {
			vanished = append(vanished, removal{l, now})
		}
	}
	return vanished, left, newer
}

// leaseIndex finds leases by subnets, node name and key.
type leaseIndex struct {
	leases  map[opt.Dual[netip.Prefix]]bool
	subnets map[netip.Prefix]bool
	names   map[string]bool
	keys    map[wgtypes.Key]bool
}

func index(leases ...Lease) leaseIndex {
	x := leaseIndex{
		leases: map[opt.Dual[netip.Prefix]]bool{}, subnets: map[netip.Prefix]bool{},
		names: map[string]bool{}, keys: map[wgtypes.Key]bool{},
	}
	for _, l := range leases {
		x.add(l)
	}
	return x
}

// add adds a lease. Leases without a node name have no name in common.
func (x leaseIndex) add(l Lease) {
	x.leases[l.Subnets], x.keys[l.Key] = true, true
	if l.Node != "" {
		x.names[l.Node] = true
	}
	for _, p := range l.Subnets.All() {
		x.subnets[p] = true
	}
}

// replaces reports whether the index has a lease with a subnet, the node or the key of l. If
// the store has such a lease, l is out of date and is held no longer.
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
	h.held, h.recent, h.left, h.shown = nil, nil, nil, h.stored
	return h
}
