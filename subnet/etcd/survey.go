package etcd

import (
	"bytes"
	"encoding/json"
	"slices"
	"strings"

	"go.etcd.io/etcd/api/v3/mvccpb"
	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"github.com/loden-net/loden/config/opt"
	"github.com/loden-net/loden/subnet"
)

// survey is what the store said to one node at one revision: which lease is the node's
// own, and which subnets are taken. It is filled from keys as they were read (add), and
// asks for the keys that it still needs (questions); it sends no request itself.
type survey struct {
	keys layout
	want Want
	form string // key form of the lease to treat as our own, for administrators; else ""

	revision int64
	record   nodeRecord     // the node's record
	node     int64          // mod revision of the record, 0 if absent
	leases   []stored       // leases that may be our own
	taken    []subnet.Lease // all leases, our own included; only Subnets are set
	flannel  bool           // flannel wrote some leases: it writes no owner keys

	named   map[string]int64 // mod revisions of owner keys that bear a name of ours
	records map[string]int64 // mod revisions of records under names that we had before
	learned int              // conflicts of lost races that were added since the survey
}

// stored is a lease in the store.
type stored struct {
	form        string // its key form
	create, mod int64
	id          etcdID // forGood: a reservation
	granted     int64  // seconds that id was granted for, 0 if not known or run out
	lease       subnet.Lease
	broken      bool     // its value is not a lease of ours
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
	return survey{keys: keys, want: want, named: map[string]int64{}, records: map[string]int64{}}
}

// add takes a key as it was read at the survey's revision.
func (s *survey) add(kv *mvccpb.KeyValue) {
	key := string(kv.Key)
	switch {
	case key == s.keys.node(s.want.Lease.Node):
		s.node = kv.ModRevision
		s.record = nodeRecord{}
		_ = json.Unmarshal(kv.Value, &s.record) // a record that was written by hand counts as an empty one
	case strings.HasPrefix(key, s.keys.leases()):
		s.addLease(strings.TrimPrefix(key, s.keys.leases()), kv)
	case strings.HasPrefix(key, s.keys.owners()):
		if slices.Contains(s.names(), string(kv.Value)) {
			s.named[key] = kv.ModRevision
		}
	default:
		s.records[key] = kv.ModRevision
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
	return false
}

// The ranks say why a lease is our own; the lowest rank wins.
const (
	asked      = iota // an administrator asked for it by its key
	recorded          // our record names it
	ourName           // it bears our name
	ourAddress        // flannel wrote it, for an address of ours
	noRank            // it is another node's
)

func (s *survey) rank(l stored) int {
	switch {
	case l.form == s.form:
		return asked
	case l.form == s.record.Lease:
		return recorded
	case l.broken:
		return noRank
	case l.lease.Node == s.want.Lease.Node:
		return ourName
	case l.lease.Node == "" && sameAddress(l.lease, s.want.Lease):
		return ourAddress
	}
	return noRank
}

// own returns the lease that this node already has.
func (s *survey) own() opt.Option[stored] {
	var best opt.Option[stored]
	for _, l := range s.leases {
		if b, ok := best.Get(); !ok || s.rank(l) < s.rank(b) {
			best = opt.Some(l)
		}
	}
	return best
}

// setGranted records the time to live that the etcd lease of our own lease was granted with.
func (s *survey) setGranted(id etcdID, seconds int64) {
	for i := range s.leases {
		if s.leases[i].id == id {
			s.leases[i].granted = seconds
		}
	}
}

// names returns the names under which this node has written owner keys.
func (s *survey) names() []string { return []string{s.want.Lease.Node} }

// questions returns the keys to read before the survey is complete: the owner keys of the
// lease that our record names and of our own lease. A node without either asks for none.
func (s *survey) questions() []string {
	forms := []string{s.record.Lease}
	if own, ok := s.own().Get(); ok {
		forms = append(forms, own.form)
	}
	slices.Sort(forms)
	var out []string
	for _, form := range slices.Compact(forms) {
		if subnets, err := subnet.ParseKey(form); err == nil {
			out = append(out, s.keys.ownersOf(subnets)...)
		}
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
		case isOwner && string(kv.Value) == s.want.Lease.Node:
			if s.named[key] != kv.ModRevision {
				s.named[key] = kv.ModRevision
				s.learned++
			}
			continue
		case isOwner:
			form = owned
		default:
			continue
		}
		if subnets, err := subnet.ParseKey(form); err == nil {
			s.taken = append(s.taken, subnet.Lease{Subnets: subnets})
			s.learned++
		}
	}
	return s.learned == 1
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
