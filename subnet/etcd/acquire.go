package etcd

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"github.com/loden-net/loden/config"
	"github.com/loden-net/loden/config/opt"
	"github.com/loden-net/loden/subnet"
)

// maxTries bounds how often a lost race is run again. Each try chooses among what is free
// by another hash, so that meeting somebody thirty times in a row means something else.
const maxTries = 30

// Acquire claims subnets for want.Node, which must be a valid name, and returns the claim.
// Of want only Node, Key and Endpoints matter. A node that has a lease gets it back with
// the same subnets; nothing is written if nothing differs, so a restart wakes nobody. A
// lease that flannel wrote for one of want's addresses is taken over. Otherwise subnets
// are allocated, preferred ones first.
//
// It runs lost races again, but does not wait for etcd. Called again and again within a
// minute, it slows down. Errors: ErrNameTaken,
// subnet.ErrOutOfSubnets, ErrUnavailable.
func (r *Registry) Acquire(ctx context.Context, n config.Network, want subnet.Lease, prefer opt.Dual[netip.Prefix]) (*Claim, error) {
	if !config.ValidName(want.Node) {
		return nil, fmt.Errorf("acquire lease: node name %q: give a name of letters, digits, '.', '-' and '_'", want.Node)
	}
	if err := r.pace(ctx, want.Node); err != nil {
		return nil, fmt.Errorf("acquire lease: %w", err)
	}
	a := attempt{r: r, network: n, want: want, prefer: prefer}
	for try := range maxTries {
		if a.stale(try) {
			if err := a.survey(ctx); err != nil {
				return nil, err
			}
		}
		c, err := a.try(ctx, try)
		if err == nil {
			return c, nil
		}
		if errors.Is(err, ErrUnavailable) {
			return nil, err // what was written without an answer, the next Acquire finds
		}
		if !errors.Is(err, errRace) {
			a.giveUp(ctx)
			return nil, err
		}
		r.health.race()
		r.log.Debug().Err(err).Int("attempt", try).Msg("lost a race for a subnet")
	}
	a.giveUp(ctx)
	return nil, fmt.Errorf("acquire lease: lost %d races: is something rewriting %s?", maxTries, r.keys.leases())
}

// errRace says that the store changed between looking and writing.
var errRace = errors.New("store changed meanwhile")

// attempt is what one Acquire knows.
type attempt struct {
	r       *Registry
	network config.Network
	want    subnet.Lease
	prefer  opt.Dual[netip.Prefix]
	byKey   string // key form of the lease to take for our own, instead of looking for it

	revision int64            // of the survey
	taken    []subnet.Lease   // only Subnets are set
	foreign  bool             // some leases are flannel's, which writes no guards
	own      opt.Option[held] // the lease that this node already has
	node     nodeRecord       // the node's key
	nodeMod  int64            // its mod revision, 0 if absent
	seen     map[string]int64 // mod revisions of guards that were found to be ours
	lessons  int              // since the survey: lost races that told what was in the way
	lease    clientv3.LeaseID // granted by this Acquire, 0 if none
}

// stale reports whether to look at the store anew before a try. What a lost race told
// serves for the next one; in a crowd it is better to see the whole.
func (a *attempt) stale(try int) bool { return try == 0 || a.lessons == 0 || a.lessons > 1 }

// held is a lease in the store.
type held struct {
	leaf        string // its key form
	create, mod int64
	etcdLease   clientv3.LeaseID // 0: a reservation
	lease       subnet.Lease
	broken      bool     // its value is no lease
	mine        []string // the guards, and the node's key, that bear its node's name
}

// nodeRecord is the value of a node's key.
type nodeRecord struct {
	Lease     string
	PublicKey string
}

// survey looks, and refuses what is another node's.
func (a *attempt) survey(ctx context.Context) error {
	if err := a.look(ctx); err != nil {
		return err
	}
	return a.checkIdentity()
}

// look reads the node's key and all leases at one revision.
func (a *attempt) look(ctx context.Context) error {
	resp, err := a.r.commit(ctx, "read leases", nil, []clientv3.Op{
		clientv3.OpGet(a.r.keys.node(a.want.Node)),
		clientv3.OpGet(a.r.keys.leases(), clientv3.WithPrefix()),
	}, nil)
	if err != nil {
		return err
	}
	a.revision, a.taken, a.lessons = resp.Header.Revision, nil, 0
	a.own, a.seen = opt.None[held](), map[string]int64{}
	a.node, a.nodeMod, a.foreign = nodeRecord{}, 0, false
	if kvs := resp.Responses[0].GetResponseRange().GetKvs(); len(kvs) > 0 {
		a.nodeMod = kvs[0].ModRevision
		_ = json.Unmarshal(kvs[0].Value, &a.node) // written by hand: as if it said nothing
	}
	for _, kv := range resp.Responses[1].GetResponseRange().GetKvs() {
		a.consider(kv)
	}
	return a.ownGuards(ctx)
}

// ownGuards notes which guards of the lease that the node's key names, and of the one that
// was found to be ours, bear our name. A node without either asks nothing.
func (a *attempt) ownGuards(ctx context.Context) error {
	leaves := []string{a.node.Lease}
	if own, ok := a.own.Get(); ok && own.leaf != a.node.Lease {
		leaves = append(leaves, own.leaf)
	}
	var gets []clientv3.Op
	for _, leaf := range leaves {
		subnets, err := subnet.ParseKey(leaf)
		if err != nil {
			continue // it names no lease, so there are no guards to know
		}
		if a.prefer.IsZero() {
			a.prefer = subnets // the lease was deleted by hand
		}
		for _, g := range a.r.keys.guards(subnets) {
			gets = append(gets, clientv3.OpGet(g))
		}
	}
	if len(gets) == 0 {
		return nil
	}
	resp, err := a.r.commit(ctx, "read guards", nil, gets, nil)
	if err != nil {
		return err
	}
	for _, one := range resp.Responses {
		for _, kv := range one.GetResponseRange().GetKvs() {
			if string(kv.Value) == a.want.Node {
				a.seen[string(kv.Key)] = kv.ModRevision
			}
		}
	}
	return nil
}

// consider takes one key of the leases branch into account.
func (a *attempt) consider(kv *mvccpb.KeyValue) {
	leaf := strings.TrimPrefix(string(kv.Key), a.r.keys.leases())
	subnets, err := subnet.ParseKey(leaf)
	if err != nil {
		return // reported by Watch
	}
	a.taken = append(a.taken, subnet.Lease{Subnets: subnets})
	a.foreign = a.foreign || !bytes.Contains(kv.Value, []byte(`"Node":"`))
	own, has := a.own.Get()
	if has && own.leaf == a.node.Lease || leaf != a.node.Lease && leaf != a.byKey && !a.mentions(string(kv.Value)) {
		return // thousands of values need not be parsed
	}
	h := held{leaf: leaf, create: kv.CreateRevision, mod: kv.ModRevision, etcdLease: clientv3.LeaseID(kv.Lease)}
	h.lease, err = subnet.ParseValue(subnets, kv.Value)
	h.lease.Subnets, h.broken = subnets, err != nil
	switch {
	case leaf == a.byKey, leaf == a.node.Lease, err == nil && h.lease.Node == a.want.Node:
	case err == nil && h.lease.Node == "" && a.sameAddress(h.lease) && !has:
	default:
		return
	}
	a.own = opt.Some(h)
}

// mentions reports whether a value may speak of this node.
func (a *attempt) mentions(value string) bool {
	if strings.Contains(value, `"`+a.want.Node+`"`) {
		return true
	}
	for _, e := range a.want.Endpoints.All() {
		if strings.Contains(value, `"`+e.Addr().String()+`"`) {
			return true
		}
	}
	return false
}

// sameAddress reports whether l is reached at an address of this node. The port does not
// matter: flannel's is not ours.
func (a *attempt) sameAddress(l subnet.Lease) bool {
	for f, e := range a.want.Endpoints.All() {
		if other, ok := l.Endpoints.Of(f).Get(); ok && other.Addr() == e.Addr() {
			return true
		}
	}
	return false
}

// checkIdentity refuses to take the lease of another node that bears the same name. Same
// key, or same address (a node set up anew), or nobody there: it is ours.
func (a *attempt) checkIdentity() error {
	own, ok := a.own.Get()
	key := a.want.Key.String()
	if !ok || own.lease.Waiting() || a.node.PublicKey == key || own.lease.Key == a.want.Key || a.sameAddress(own.lease) {
		return nil
	}
	theirs := own.lease.Key
	if own.lease.Key == (wgtypes.Key{}) {
		theirs, _ = wgtypes.ParseKey(a.node.PublicKey)
	}
	return fmt.Errorf("acquire lease: %w: %q holds %s with key %s at %s; this node has key %s at %s: "+
		"if that node is gone, `loden lease release %s`; if not, give this one another --node-name",
		ErrNameTaken, a.want.Node, own.leaf, theirs, addresses(own.lease), key, addresses(a.want), a.want.Node)
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

// choose returns the subnets to claim: those already held as far as they fit the network,
// and new ones for the families that lack one.
func (a *attempt) choose(try int) (opt.Dual[netip.Prefix], error) {
	prefer, taken := a.prefer, a.taken
	if own, ok := a.own.Get(); ok {
		for f, p := range own.lease.Subnets.All() {
			prefer = prefer.With(f, p)
		}
		taken = slices.DeleteFunc(slices.Clone(taken), func(l subnet.Lease) bool { return l.Subnets == own.lease.Subnets })
	}
	return subnet.Allocate(a.network, fmt.Sprintf("%s#%d", a.want.Node, try), prefer, taken)
}
