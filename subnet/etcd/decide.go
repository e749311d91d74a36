package etcd

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"github.com/loden-net/loden/config"
	"github.com/loden-net/loden/config/opt"
	"github.com/loden-net/loden/subnet"
)

// Want is the request of a node: a lease in a network.
type Want struct {
	Network config.Network
	Lease   subnet.Lease           // Node, Key and Endpoints matter, and no other field
	Prefer  opt.Dual[netip.Prefix] // subnets to claim if they are free
	Avoid   []netip.Prefix         // no newly chosen subnet overlaps them; subnets that the node holds stay
}

// decision is the answer to a survey: the lease that the node gets, and the transaction
// that makes it so.
type decision struct {
	lease subnet.Lease
	form  string             // key form of lease
	kept  opt.Option[stored] // set: the store already says so, there is no transaction
	write transaction        // if the store is still as surveyed
	since opt.Option[int64]  // set: leases of flannel that appear after this revision may overlap ours
}

// decide returns the decision for a node that wants a lease: the subnets that it already
// holds as far as they fit the network, and new subnets for the families that lack one. It
// is a function of its arguments alone. try picks other free subnets after a lost race;
// seconds is the time to live of our etcd lease. Errors: ErrNameTaken, subnet.ErrOutOfSubnets.
func decide(s survey, try int, now time.Time, seconds int64) (decision, error) {
	if err := s.checkIdentity(); err != nil {
		return decision{}, err
	}
	subnets, err := s.choose(try)
	if err != nil {
		return decision{}, fmt.Errorf("acquire lease: %w", err)
	}
	d := decision{form: subnet.FormatKey(subnets), lease: s.want.Lease}
	d.lease.Subnets, d.lease.Leaving, d.lease.Claimed = subnets, false, now.Unix()
	own, resumed := s.own().Get()
	var hangs opt.Option[etcdID] // none: a new etcd lease
	if resumed {
		d.lease.Reserved = own.id == forGood
		if d.lease.Reserved || own.granted == seconds && own.lease.Node != "" { // flannel's etcd lease stays flannel's
			hangs = opt.Some(own.id)
		}
		if own.form == d.form && own.lease.Claimed != 0 && own.lease.Key != (wgtypes.Key{}) {
			d.lease.Claimed = own.lease.Claimed
		}
		d.lease.Since = own.lease.Since
		if hangs.Present() && own.form == d.form && !own.broken && d.lease == own.lease && s.complete(d) {
			own.named = s.keys.named(d.lease)
			own.lease.Since = own.create
			d.kept, d.lease = opt.Some(own), own.lease
			return d, nil
		}
	}
	s.writeTo(&d, hangs)
	return d, nil
}

// decideReservation returns the decision to set the subnets of want aside for want's node,
// for good. Families that want does not give are allocated.
func decideReservation(s survey, try int) (decision, error) {
	subnets, err := s.choose(try)
	if err != nil {
		return decision{}, fmt.Errorf("reserve: %w", err)
	}
	own, has := s.own().Get()
	for f, p := range s.want.Prefer.All() {
		if subnets.Of(f) == opt.Some(p) {
			continue
		}
		if has {
			return decision{}, fmt.Errorf("reserve %s: node %q holds %s: release that first", p, s.want.Lease.Node, own.form)
		}
		return decision{}, fmt.Errorf("reserve %s: it is taken: see `loden lease list`", p)
	}
	d := decision{form: subnet.FormatKey(subnets), lease: s.want.Lease}
	if has {
		d.lease = own.lease
		d.lease.Node = s.want.Lease.Node
	}
	d.lease.Subnets, d.lease.Reserved = subnets, true
	s.writeTo(&d, opt.Some(forGood))
	return d, nil
}

// checkIdentity refuses to take the lease of another node that bears the same name. A
// lease with the same key, with the same address (a node that was set up anew), or without
// a node is ours. A node that has lost its lease to another name and address with its own
// key was cloned: it does not fight, since a node that was renamed starts anew.
func (s *survey) checkIdentity() error {
	own, ok := s.own().Get()
	want := s.want.Lease
	key := want.Key.String()
	if ok && s.running && s.rank(own) == ourKey && !sameAddress(own.lease, want) {
		return fmt.Errorf("acquire lease: %w: node %q at %s took the lease %s with this node's public key %s, so the two machines have one private key: "+
			"on one of them stop loden, delete the file private.key in its state directory, and start it again", ErrKeyTaken, own.lease.Node, addresses(own.lease), own.form, key)
	}
	if !ok || own.lease.Waiting() || s.record.PublicKey == key || own.lease.Key == want.Key || sameAddress(own.lease, want) {
		return nil
	}
	theirs := own.lease.Key
	if own.lease.Key == (wgtypes.Key{}) {
		theirs, _ = wgtypes.ParseKey(s.record.PublicKey)
	}
	return fmt.Errorf("acquire lease: %w: %q holds %s with key %s at %s; this node has key %s at %s: "+
		"if that node is gone, `loden lease release %s`; if not, give this one another --node-name",
		ErrNameTaken, want.Node, own.form, theirs, addresses(own.lease), key, addresses(want), want.Node)
}

// addresses lists endpoints for a message.
func addresses(l subnet.Lease) string {
	var out []string
	for _, e := range l.Endpoints.All() {
		out = append(out, e.String())
	}
	if len(out) == 0 {
		return "no address"
	}
	return strings.Join(out, ",")
}

// choose returns the subnets to claim.
func (s *survey) choose(try int) (opt.Dual[netip.Prefix], error) {
	prefer, taken := s.want.Prefer, s.taken
	if prefer.IsZero() { // the lease may have been deleted by hand
		if subnets, err := subnet.ParseKey(s.record.Lease); err == nil {
			prefer = subnets
		}
	}
	own, has := s.own().Get()
	if has {
		for f, p := range own.lease.Subnets.All() {
			prefer = prefer.With(f, p)
		}
		taken = slices.DeleteFunc(slices.Clone(taken), func(l subnet.Lease) bool { return l.Subnets == own.lease.Subnets })
	}
	for _, p := range s.want.Avoid {
		f := opt.FamilyOf(p.Addr())
		if held, ok := own.lease.Subnets.Of(f).Get(); !ok || !held.Overlaps(p) {
			taken = append(slices.Clip(taken), subnet.Lease{Subnets: opt.Dual[netip.Prefix]{}.With(f, p)})
		}
	}
	seed := fmt.Sprintf("%s#%d", s.want.Lease.Node, try)
	all, young := taken, taken
	for _, o := range s.orphans {
		if s.named[s.keys.owner(o.subnet)] != 0 {
			continue // our own key, whose lease was deleted by hand
		}
		l := subnet.Lease{Subnets: opt.Dual[netip.Prefix]{}.With(opt.FamilyOf(o.subnet.Addr()), o.subnet)}
		all = append(slices.Clip(all), l)
		if !o.old {
			young = append(slices.Clip(young), l)
		}
	}
	out, err := subnet.Allocate(s.want.Network, seed, prefer, all)
	if errors.Is(err, subnet.ErrOutOfSubnets) && len(s.orphans) > 0 {
		if out, err = subnet.Allocate(s.want.Network, seed, prefer, young); err != nil {
			o := s.orphans[0]
			return out, fmt.Errorf("%w: %d subnets have an owner key without a lease (the first is %s of node %.64q): "+
				"they are taken over when they have been so for the time to live of a lease; if their nodes are gone, `loden lease release %s` frees one at once",
				err, len(s.orphans), s.keys.owner(o.subnet), o.node, subnet.FormatSubnet(o.subnet))
		}
	}
	return out, err
}

// ownerRevision returns the mod revision that an owner key must have for our transaction:
// 0 when it must be absent. An owner key with another name under a lease of ours was
// written by another program, since a node that claims writes the lease too: our lease
// counts.
func (s *survey) ownerRevision(key string) int64 {
	if own, ok := s.own().Get(); ok && s.others[key] != 0 && slices.Contains(s.keys.ownersOf(own.lease.Subnets), key) {
		return s.others[key]
	}
	for _, o := range s.orphans {
		if o.old && s.keys.owner(o.subnet) == key {
			return o.mod
		}
	}
	return s.named[key]
}

// complete reports whether all owner keys of d, and the node's record, were found in place.
func (s *survey) complete(d decision) bool {
	for _, key := range s.keys.ownersOf(d.lease.Subnets) {
		if s.named[key] == 0 {
			return false
		}
	}
	return s.node != 0 && s.record == recordOf(d.form, d.lease) && len(s.earlier()) == 0
}

// writeTo sets d's transaction: it writes the lease, its owner keys and the node's record,
// and deletes the keys that the node held and holds no longer, if these keys are still as the
// survey saw them.
func (s *survey) writeTo(d *decision, hangs opt.Option[etcdID]) {
	k, node := s.keys, s.want.Lease.Node
	owners := k.ownersOf(d.lease.Subnets)
	t := transaction{what: "write lease " + d.form, hangs: hangs}
	t.puts = []put{{k.lease(d.form), string(subnet.FormatValue(d.lease))}, {k.node(node), recordOf(d.form, d.lease).String()}}
	t.conditions = []condition{{key: k.node(node), rev: s.node}}
	for _, key := range owners {
		t.puts = append(t.puts, put{key, node})
		t.conditions = append(t.conditions, condition{key: key, rev: s.ownerRevision(key)})
	}
	own, resumed := s.own().Get()
	if resumed {
		t.conditions = append(t.conditions, condition{key: k.lease(own.form), rev: own.mod})
	}
	if !resumed || own.form != d.form {
		t.conditions = append(t.conditions, condition{key: k.lease(d.form)})
	}
	// A flannel node may have written a lease with this IPv4 subnet since the survey, and
	// it writes no owner keys. IPv4 comes first in the key, so a range can be compared.
	if p, ok := d.lease.Subnets.V4.Get(); ok && (!resumed || own.lease.Subnets.V4 != opt.Some(p)) {
		t.conditions = append(t.conditions, condition{key: k.lease(subnet.FormatSubnet(p)), kind: noneBelow})
	}
	if resumed && own.form != d.form {
		t.deletes = append(t.deletes, k.lease(own.form))
	}
	for _, l := range s.earlier() {
		t.conditions = append(t.conditions, condition{key: k.lease(l.form), rev: l.mod})
		t.deletes = append(t.deletes, k.lease(l.form))
	}
	for _, key := range slices.Sorted(maps.Keys(s.records)) {
		t.conditions = append(t.conditions, condition{key: key, rev: s.records[key]})
		t.deletes = append(t.deletes, key)
	}
	for key := range s.named {
		if !slices.Contains(owners, key) {
			t.deletes = append(t.deletes, key)
		}
	}
	slices.Sort(t.deletes)
	if s.flannel {
		d.since = opt.Some(s.revision)
	}
	d.write = t
}
