package etcd

import (
	"bytes"
	"cmp"
	"encoding/json"
	"slices"
	"strings"

	"go.etcd.io/etcd/api/v3/mvccpb"
	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"github.com/loden-net/loden/config/opt"
	"github.com/loden-net/loden/subnet"
)

// survey is the state of the store as a node saw it at a revision: which lease is the node's
// own, and which subnets are taken. It is filled from keys as they were read (add), and
// asks for the keys that it still needs (questions); it sends no request itself.
type survey struct {
	keys layout
	want Want
	form string // key form of the lease to treat as our own, for administrators; else ""

	running bool // this process has held a lease before

	revision int64
	record   nodeRecord     // the node's record
	node     int64          // mod revision of the record, 0 if absent
	leases   []stored       // leases that may be our own
	taken    []subnet.Lease // all leases, our own included; only Subnets are set
	flannel  bool           // flannel wrote some leases: it writes no owner keys

	named   map[string]int64 // mod revisions of owner keys that bear a name of ours
	others  map[string]int64 // mod revisions of owner keys of our leases that bear another name
	records map[string]int64 // mod revisions of our records under earlier names, by key
	learned int              // conflicts of lost races that were added since the survey

	orphans []orphan // owner keys without a lease; known only after a race was lost to an orphan
	suspect bool     // a race was lost to an owner key without a lease
}

// stored is a lease in the store.
type stored struct {
	form        string // its key form
	create, mod int64
	id          etcdID // forGood: a reservation
	granted     int64  // seconds that id was granted for, 0 if not known or run out
	lease       subnet.Lease
	broken      bool     // its value is not a lease of ours
	orphan      bool     // there is no lease, only an owner key in named, last changed at mod
	named       []string // owner keys, and the record, that bear the name of its node
}

// nodeRecord is the value of a node's key.
type nodeRecord struct {
	Lease     string
	PublicKey string
}

// recordOf returns the record of the node that holds lease under the key form.
func recordOf(form string, lease subnet.Lease) nodeRecord {
	n := nodeRecord{Lease: form}
	if lease.Key != (wgtypes.Key{}) {
		n.PublicKey = lease.Key.String()
	}
	return n
}

// String returns the record as it stands in the store.
func (n nodeRecord) String() string {
	data, _ := json.Marshal(n) // two strings: it cannot fail
	return string(data)
}

// newSurvey returns a survey for want that knows no key yet.
func newSurvey(keys layout, want Want) survey {
	return survey{keys: keys, want: want, named: map[string]int64{}, others: map[string]int64{}, records: map[string]int64{}}
}

// add takes a key as it was read at the survey's revision.
func (s *survey) add(kv *mvccpb.KeyValue) {
	key := string(kv.Key)
	switch {
	case key == s.keys.node(s.want.Lease.Node):
		s.node = kv.ModRevision
		s.record = nodeRecord{}
		_ = json.Unmarshal(kv.Value, &s.record) // a record that was written by hand counts as empty
	case strings.HasPrefix(key, s.keys.leases()):
		s.addLease(strings.TrimPrefix(key, s.keys.leases()), kv)
	case strings.HasPrefix(key, s.keys.owners()):
		if slices.Contains(s.names(), string(kv.Value)) {
			s.named[key] = kv.ModRevision
		} else {
			s.others[key] = kv.ModRevision
		}
	default: // a record under an earlier name: ours if it names a lease with our key
		var rec nodeRecord
		if json.Unmarshal(kv.Value, &rec) == nil && slices.ContainsFunc(s.leases, func(l stored) bool { return l.form == rec.Lease && s.rank(l) == ourKey }) {
			s.records[key] = kv.ModRevision
		}
	}
}

// addLease takes a key of the leases branch. Thousands of values belong to other nodes and
// are not parsed.
func (s *survey) addLease(form string, kv *mvccpb.KeyValue) {
	subnets, err := subnet.ParseKey(form)
	if err != nil {
		return // Watch reports it
	}
	s.taken = append(s.taken, subnet.Lease{Subnets: subnets})
	flannels := !bytes.Contains(kv.Value, []byte(`"Node":"`))
	s.flannel = s.flannel || flannels
	if form != s.record.Lease && form != s.form && !s.mentioned(string(kv.Value)) {
		return
	}
	l := stored{form: form, create: kv.CreateRevision, mod: kv.ModRevision, id: etcdID(kv.Lease)}
	l.lease, err = subnet.ParseValue(subnets, kv.Value)
	if err != nil && flannels { // another backend of flannel
		l.lease, err = subnet.ParseFlannel(subnets, kv.Value)
	}
	l.lease.Subnets, l.broken = subnets, err != nil
	if s.rank(l) < noRank {
		s.leases = append(s.leases, l)
	}
}

// mentioned reports whether a value may speak of this node.
func (s *survey) mentioned(value string) bool {
	if strings.Contains(value, `"`+s.want.Lease.Node+`"`) {
		return true
	}
	for _, e := range s.want.Lease.Endpoints.All() {
		if strings.Contains(value, `"`+e.Addr().String()+`"`) {
			return true
		}
	}
	return s.want.Lease.Key != (wgtypes.Key{}) && strings.Contains(value, `"`+s.want.Lease.Key.String()+`"`)
}

// The ranks say why a lease is our own; the lowest rank wins.
const (
	asked      = iota // an administrator asked for it by its key
	recorded          // our record names it
	ourName           // it bears our name
	ourKey            // it has our public key: the node had another name before
	ourAddress        // flannel wrote it, for an address of ours
	noRank            // it is another node's
)

func (s *survey) rank(l stored) int {
	switch {
	case l.form == s.form:
		return asked
	case l.form == s.record.Lease && (l.broken || l.lease.Node == "" || l.lease.Node == s.want.Lease.Node):
		return recorded
	case l.broken:
		return noRank
	case l.lease.Node == s.want.Lease.Node:
		return ourName
	case l.lease.Key == s.want.Lease.Key && l.lease.Key != (wgtypes.Key{}):
		return ourKey
	case l.lease.Node == "" && sameAddress(l.lease, s.want.Lease):
		return ourAddress
	}
	return noRank
}

// own returns the lease that this node already has: of several with the best rank the
// lease of the preferred subnets, which running pods have, else the oldest.
func (s *survey) own() opt.Option[stored] {
	var best opt.Option[stored]
	for _, l := range s.leases {
		if b, ok := best.Get(); !ok || s.compare(l, b) < 0 {
			best = opt.Some(l)
		}
	}
	return best
}

// compare is negative if a is our own lease rather than b.
func (s *survey) compare(a, b stored) int {
	preferred := func(l stored) int {
		for f, p := range s.want.Prefer.All() {
			if l.lease.Subnets.Of(f) == opt.Some(p) {
				return 0
			}
		}
		return 1
	}
	return cmp.Or(cmp.Compare(s.rank(a), s.rank(b)), cmp.Compare(preferred(a), preferred(b)), cmp.Compare(a.create, b.create))
}

// earlier returns the other leases that have our public key: peers refuse the younger of
// two leases with the same key, so the decision deletes them.
func (s *survey) earlier() []stored {
	own := s.own().Or(stored{})
	var out []stored
	for _, l := range s.leases {
		if l.form != own.form && s.rank(l) == ourKey {
			out = append(out, l)
		}
	}
	return out
}

// setGranted records the time to live that the etcd lease of our own lease was granted with.
func (s *survey) setGranted(id etcdID, seconds int64) {
	for i := range s.leases {
		if s.leases[i].id == id {
			s.leases[i].granted = seconds
		}
	}
}

// names returns the names under which this node has written owner keys: its name, and the
// names in leases with our public key.
func (s *survey) names() []string {
	out := []string{s.want.Lease.Node}
	for _, l := range s.leases {
		if s.rank(l) == ourKey && l.lease.Node != "" {
			out = append(out, l.lease.Node)
		}
	}
	return out
}

// questions returns the keys to read before the survey is complete: the owner keys of the
// lease that our record names and of the leases that may be our own, and our records under
// earlier names. A node without any lease asks for none.
func (s *survey) questions() []string {
	forms := []string{s.record.Lease}
	for _, l := range s.leases {
		forms = append(forms, l.form)
	}
	slices.Sort(forms)
	var out []string
	for _, form := range slices.Compact(forms) {
		if subnets, err := subnet.ParseKey(form); err == nil {
			out = append(out, s.keys.ownersOf(subnets)...)
		}
	}
	for _, name := range s.names()[1:] {
		out = append(out, s.keys.node(name))
	}
	return out
}

// learn adds the conflicts that a refused transaction read, and reports whether the survey
// then serves for another try. In a crowd a new survey is better: it sees all conflicts.
func (s *survey) learn(conflicts []*mvccpb.KeyValue) bool {
	s.taken = slices.Clip(s.taken)
	own := s.own().Or(stored{})
	for _, kv := range conflicts {
		key := string(kv.Key)
		form, isLease := strings.CutPrefix(key, s.keys.leases())
		owned, isOwner := strings.CutPrefix(key, s.keys.owners())
		switch {
		case isLease && form == own.form:
			continue // our own lease has changed: only a new survey helps
		case isLease:
		case isOwner && slices.Contains(s.names(), string(kv.Value)):
			if s.named[key] != kv.ModRevision {
				s.named[key] = kv.ModRevision
				s.learned++
			}
			continue
		case isOwner:
			form = owned
			o, ok := parseOwner(s.keys, key, kv.Value, kv.ModRevision)
			if ok && o.mod <= s.revision && len(withoutLease([]ownerKey{o}, s.taken)) > 0 {
				s.suspect = true
			}
		default:
			continue
		}
		if subnets, err := subnet.ParseKey(form); err == nil {
			s.taken = append(s.taken, subnet.Lease{Subnets: subnets})
			s.learned++
		}
	}
	return s.learned == 1 && !s.suspect
}

// sameAddress reports whether two leases are reached at a common address. The port does not
// matter: flannel's is not ours.
func sameAddress(a, b subnet.Lease) bool {
	for f, e := range a.Endpoints.All() {
		if other, ok := b.Endpoints.Of(f).Get(); ok && other.Addr() == e.Addr() {
			return true
		}
	}
	return false
}
