package etcd

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/loden-net/loden/config"
	"github.com/loden-net/loden/subnet"
)

// maxTries bounds how often a lost race is run again. Each try chooses among the free
// subnets by another hash, so a node that loses thirty races in a row has another problem.
const maxTries = 30

// errRace says that the store changed between the survey and the transaction.
var errRace = errors.New("store changed meanwhile")

// Acquire claims subnets for want.Lease.Node, which must be a valid name, and returns the
// claim. A node that has a lease gets it back with the same subnets; no key is written if
// none differs, so a restart wakes no watcher. A lease that flannel wrote for an address of
// want is taken over. Otherwise subnets are allocated, preferred subnets first.
//
// It runs lost races again, but does not wait for etcd. Called again and again within a
// minute, it slows down. Errors: ErrNameTaken, ErrKeyTaken, subnet.ErrOutOfSubnets, ErrUnavailable.
func (r *Registry) Acquire(ctx context.Context, want Want) (*Claim, error) {
	if err := checkName("acquire lease", want.Lease.Node); err != nil {
		return nil, err
	}
	if err := r.pace(ctx, want.Lease.Node); err != nil {
		return nil, fmt.Errorf("acquire lease: %w", err)
	}
	x := acquisition{r: r, decide: func(s survey, try int) (decision, error) {
		return decide(s, try, time.Now(), r.seconds())
	}}
	c, err := x.run(ctx, want)
	if err == nil {
		r.held.Store(true)
	}
	if err != nil && !errors.Is(err, ErrUnavailable) { // the next Acquire finds keys that were written without an answer
		x.giveUp(ctx)
	}
	return c, err
}

// Choice is the lease that a node would get.
type Choice struct {
	Lease subnet.Lease
	Held  bool // the node holds these subnets already; otherwise they are free, and another node may be faster
}

// Choice returns the lease that Acquire would claim for want now if it lost no race. It
// writes no key. Errors are those of Acquire.
func (r *Registry) Choice(ctx context.Context, want Want) (Choice, error) {
	if err := checkName("choose subnets", want.Lease.Node); err != nil {
		return Choice{}, err
	}
	s, err := r.survey(ctx, want, "")
	if err != nil {
		return Choice{}, err
	}
	d, err := decide(s, 0, time.Now(), r.seconds())
	if err != nil {
		return Choice{}, err
	}
	conflicts, err := r.readAt(ctx, "read owner keys", r.keys.ownersOf(d.lease.Subnets))
	if err != nil {
		return Choice{}, err
	}
	s.learn(conflicts)
	if s.suspect { // as Acquire does when it loses the race to an orphan
		if err := r.addOrphans(ctx, &s); err != nil {
			return Choice{}, err
		}
		if d, err = decide(s, 0, time.Now(), r.seconds()); err != nil {
			return Choice{}, err
		}
	}
	own, ok := s.own().Get()
	return Choice{Lease: d.lease, Held: ok && own.lease.Subnets == d.lease.Subnets}, nil
}

func checkName(what, name string) error {
	if config.ValidName(name) {
		return nil
	}
	return fmt.Errorf("%s: node name %q is not valid: give a name of letters, digits, '.', '-' and '_'", what, name)
}

// survey reads the node's record and all leases at the same revision, then the owner keys that
// the survey asks for.
func (r *Registry) survey(ctx context.Context, want Want, form string) (survey, error) {
	s := newSurvey(r.keys, want)
	s.form, s.running = form, r.held.Load()
	record, err := r.get(ctx, "read node", r.keys.node(want.Lease.Node))
	if err != nil {
		return s, err
	}
	s.revision = record.Header.Revision
	s.addAll(record.Kvs)
	err = r.pages(ctx, "read leases", r.keys.leases(), s.revision, func(resp *clientv3.GetResponse) { s.addAll(resp.Kvs) })
	if err != nil {
		return s, err
	}
	kvs, err := r.readAt(ctx, "read owner keys", s.questions())
	s.addAll(kvs)
	return s, err
}

// addOrphans reads all owner keys and adds the orphans to the survey.
func (r *Registry) addOrphans(ctx context.Context, s *survey) error {
	owners, err := r.owners(ctx, s.revision)
	if err != nil {
		return err
	}
	s.orphans = r.age(owners, s.taken, time.Now())
	return nil
}

func (s *survey) addAll(kvs []*mvccpb.KeyValue) {
	for _, kv := range kvs {
		s.add(kv)
	}
}

// read returns the keys that a transaction read.
func read(resp *clientv3.TxnResponse) []*mvccpb.KeyValue {
	var out []*mvccpb.KeyValue
	for _, part := range resp.Responses {
		out = append(out, part.GetResponseRange().GetKvs()...)
	}
	return out
}

// acquisition turns decisions into a claim.
type acquisition struct {
	r       *Registry
	decide  func(survey, int) (decision, error)
	granted etcdID // granted by this acquisition, 0 if none
	orphans bool   // whether surveys look for owner keys without a lease
}

// run surveys, decides and commits until a transaction succeeds.
func (x *acquisition) run(ctx context.Context, want Want) (*Claim, error) {
	var s survey
	usable := false // whether s serves for the next try
	try := 0
	for range maxTries {
		if !usable {
			var err error
			if s, err = x.survey(ctx, want); err != nil {
				return nil, err
			}
		}
		d, err := x.decide(s, try)
		if err != nil {
			return nil, err
		}
		c, conflicts, err := x.commit(ctx, s, d)
		if !errors.Is(err, errRace) {
			return c, err
		}
		usable = s.learn(conflicts)
		try++
		if s.suspect && !x.orphans {
			x.orphans, try = true, 0 // no node was faster: choose as if the orphans had been known
		}
		x.r.health.race()
		x.r.log.Debug().Err(err).Int("attempt", try).Msg("lost a race for a subnet")
	}
	return nil, fmt.Errorf("acquire lease: lost %d races: is another program rewriting %s?", maxTries, x.r.keys.leases())
}

// survey is the registry's, and renews the etcd lease of our own lease.
func (x *acquisition) survey(ctx context.Context, want Want) (survey, error) {
	s, err := x.r.survey(ctx, want, "")
	if err == nil && x.orphans {
		err = x.r.addOrphans(ctx, &s)
	}
	if err != nil {
		return s, err
	}
	own, ok := s.own().Get()
	if !ok || own.id == forGood {
		return s, nil
	}
	ttl, err := x.r.renew(ctx, own.id)
	switch {
	case errors.Is(err, rpctypes.ErrLeaseNotFound): // our keys are about to go, and the decision asks for a new etcd lease
		return s, nil
	case err != nil:
		return s, err
	}
	s.setGranted(own.id, ttl)
	return s, nil
}

// commit carries out a decision. When the store has changed meanwhile, the error is errRace
// and the keys that were in the way are returned.
func (x *acquisition) commit(ctx context.Context, s survey, d decision) (*Claim, []*mvccpb.KeyValue, error) {
	if kept, ok := d.kept.Get(); ok {
		return &Claim{r: x.r, store: kept}, nil, nil
	}
	id, known := d.write.hangs.Get()
	if !known {
		if x.granted == 0 {
			var err error
			if x.granted, err = x.r.grant(ctx); err != nil {
				return nil, nil, err
			}
		}
		id = x.granted
	}
	k := x.r.keys
	reads := []clientv3.Op{clientv3.OpGet(k.lease(d.form), clientv3.WithKeysOnly())}
	if rev, ok := d.since.Get(); ok { // etcd walks over all leases for it, so only beside flannel's nodes
		reads = append(reads, clientv3.OpGet(k.leases(), clientv3.WithPrefix(), clientv3.WithKeysOnly(), clientv3.WithMinCreateRev(rev+1)))
	}
	resp, err := x.r.commit(ctx, d.write, id, reads...)
	if errors.Is(err, rpctypes.ErrLeaseNotFound) { // granted long ago, or etcd was emptied just now
		x.granted = 0
		return nil, nil, fmt.Errorf("%s: %w", d.write.what, errRace)
	}
	if err != nil {
		return nil, nil, err
	}
	if !resp.Succeeded {
		return nil, read(resp), fmt.Errorf("%s: %w", d.write.what, errRace)
	}
	kvs := read(resp) // first the lease, just written in this transaction
	l := stored{form: d.form, id: id, lease: d.lease, create: kvs[0].CreateRevision, mod: kvs[0].ModRevision, named: k.named(d.lease)}
	l.lease.Since = l.create
	c := &Claim{r: x.r, store: l}
	if overtaken(k, l, kvs[1:]) { // the next survey sees the conflict
		return nil, nil, errors.Join(fmt.Errorf("%s: %w", d.write.what, errRace), c.drop(ctx))
	}
	return c, nil, nil
}

// overtaken reports whether a key is an older lease, of a node that writes no owner keys,
// over a subnet of l.
func overtaken(k layout, l stored, kvs []*mvccpb.KeyValue) bool {
	for _, kv := range kvs {
		form := strings.TrimPrefix(string(kv.Key), k.leases())
		subnets, err := subnet.ParseKey(form)
		if err != nil || form == l.form || kv.CreateRevision > l.create {
			continue
		}
		for f, p := range l.lease.Subnets.All() {
			if other, ok := subnets.Of(f).Get(); ok && other.Overlaps(p) {
				return true
			}
		}
	}
	return false
}

// giveUp takes back the etcd lease of an acquisition that failed. If it cannot, the etcd
// lease runs out by itself.
func (x *acquisition) giveUp(ctx context.Context) {
	if x.granted != 0 {
		_ = x.r.revoke(context.WithoutCancel(ctx), x.granted)
	}
}
