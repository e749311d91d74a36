package subnet

import (
	"net/netip"
	"slices"

	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"github.com/loden-net/loden/config/sorted"
)

// Claims finds the leases whose judgement a change of the leases can alter. Validate judges the
// leases of a network oldest first, and a lease only ever loses to an older lease with a subnet
// or the key of it. So the leases fall into groups that share subnets or keys, directly or through
// other leases of the group; nearly every group is a single lease. A group is judged alike
// alone and among all leases:
//
//	10.5.1.0/24 ─┬─ a, since 17                 10.5.3.0/24 ─── d, since 40
//	             └─ b, since 23 ─┬─ key of b    key of d ───────┘
//	10.5.2.0/24 ─── c, since 31 ─┘
//
// The group of a, b and c must be judged again when one of the three changes; d need not be.
// Make it with NewClaims.
type Claims struct {
	leases  Leases
	subnets claimants[netip.Prefix]
	keys    claimants[wgtypes.Key]
}

// NewClaims returns the index of leases.
func NewClaims(leases Leases) *Claims {
	c := &Claims{leases: leases, subnets: newClaimants[netip.Prefix](leases.Len()), keys: newClaimants[wgtypes.Key](leases.Len())}
	for l := range leases.All() {
		c.add(l)
	}
	return c
}

// Follow takes the next leases and returns the leases of the groups that the changes touch:
// those that are to be judged again, and those that are gone or have changed, as they were. It
// costs what the changes and their groups hold.
func (c *Claims) Follow(next Leases) (again, gone []Lease) {
	var touched []Lease
	for change := range sorted.Diff(c.leases, next) {
		if l, ok := change.Before.Get(); ok {
			c.remove(l)
			gone = append(gone, l)
		}
		if l, ok := change.After.Get(); ok {
			c.add(l)
			touched = append(touched, l)
		}
	}
	c.leases = next
	return c.groups(append(touched, gone...)), gone
}

// Of returns the leases with a public key, oldest first.
func (c *Claims) Of(key wgtypes.Key) []Lease {
	ages := c.keys.of(key)
	slices.Sort(ages)
	var out []Lease
	for _, since := range ages {
		for l := range c.leases.From(Lease{Since: since}) {
			if l.Since != since {
				break
			}
			if l.Key == key {
				out = append(out, l)
			}
		}
	}
	return out
}

// groups returns the present leases of the groups that leases belong to or belonged to.
func (c *Claims) groups(leases []Lease) []Lease {
	seenSubnets, seenKeys, seenAges := map[netip.Prefix]bool{}, map[wgtypes.Key]bool{}, map[int64]bool{}
	var out []Lease
	visit := func(ages []int64) {
		for _, since := range ages {
			if seenAges[since] {
				continue
			}
			seenAges[since] = true
			for l := range c.leases.From(Lease{Since: since}) {
				if l.Since != since {
					break
				}
				out = append(out, l)
			}
		}
	}
	expand := func(l Lease) {
		for _, p := range l.Subnets.All() {
			if !seenSubnets[p] {
				seenSubnets[p] = true
				visit(c.subnets.of(p))
			}
		}
		if !seenKeys[l.Key] {
			seenKeys[l.Key] = true
			visit(c.keys.of(l.Key))
		}
	}
	for _, l := range leases {
		expand(l)
	}
	for i := 0; i < len(out); i++ { // out grows meanwhile
		expand(out[i])
	}
	return out
}

func (c *Claims) add(l Lease) {
	for _, p := range l.Subnets.All() {
		c.subnets.add(p, l.Since)
	}
	c.keys.add(l.Key, l.Since)
}

func (c *Claims) remove(l Lease) {
	for _, p := range l.Subnets.All() {
		c.subnets.remove(p, l.Since)
	}
	c.keys.remove(l.Key, l.Since)
}

// claimants are the ages of the leases that claim a subnet or a key. Nearly every claim has a
// single claimant; the others are kept beside it.
type claimants[K comparable] struct {
	first  map[K]int64
	others map[K][]int64
}

func newClaimants[K comparable](size int) claimants[K] {
	return claimants[K]{first: make(map[K]int64, size), others: map[K][]int64{}}
}

// of returns the ages of a claim.
func (c claimants[K]) of(claim K) []int64 {
	first, ok := c.first[claim]
	if !ok {
		return nil
	}
	return append([]int64{first}, c.others[claim]...)
}

func (c claimants[K]) add(claim K, since int64) {
	if _, taken := c.first[claim]; !taken {
		c.first[claim] = since
		return
	}
	c.others[claim] = append(c.others[claim], since)
}

func (c claimants[K]) remove(claim K, since int64) {
	all := c.of(claim)
	at := slices.Index(all, since)
	if at < 0 {
		return
	}
	all = slices.Delete(all, at, at+1)
	if len(all) == 0 {
		delete(c.first, claim)
		return
	}
	c.first[claim] = all[0]
	if others := all[1:]; len(others) > 0 {
		c.others[claim] = others
	} else {
		delete(c.others, claim)
	}
}
