package subnet

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"github.com/loden-net/loden/config/sorted"
)

// Saved is the state that a node keeps on disk to start without etcd: the network document, its own
// lease, and all leases.
type Saved struct {
	At       time.Time // when it was true
	Document []byte    // the network document as it stands in etcd, for config.ParseNetwork
	Self     Lease     // this node's own lease
	Snapshot Snapshot  // Problems and Released are not saved
}

// savedFile is Saved as a file. Leases stand there as in etcd, so the same codec checks
// both.
type savedFile struct {
	Version  int          `json:"version"`
	At       int64        `json:"at"` // Unix seconds
	Revision int64        `json:"revision"`
	Document []byte       `json:"document"` // base64: it may hold the mesh's pre-shared key, and need not be JSON
	Self     savedLease   `json:"self"`
	Leases   []savedLease `json:"leases"`
}

type savedLease struct {
	Key   string          `json:"key"`
	Value json.RawMessage `json:"value,omitempty"`
	Since int64           `json:"since"`
}

const savedVersion = 1

// Encode returns the file's content. It holds the network document, which may hold a
// pre-shared key: write it with mode 0600.
func (s Saved) Encode() []byte {
	f := savedFile{
		Version: savedVersion, At: s.At.Unix(), Revision: s.Snapshot.Revision,
		Document: s.Document, Self: saveLease(s.Self), Leases: []savedLease{},
	}
	head, _ := json.Marshal(f) // plain values, and JSON that FormatValue made: it cannot fail
	out := make([]byte, 0, len(head)+savedSize*s.Snapshot.Leases.Len())
	out = append(out, bytes.TrimSuffix(head, []byte("]}"))...)
	first := true
	for l := range s.Snapshot.Leases.All() { // a line for each, without a second copy of all
		if !first {
			out = append(out, ',')
		}
		first = false
		line, _ := json.Marshal(saveLease(l))
		out = append(append(out, '\n'), line...)
	}
	return append(out, "\n]}\n"...)
}

// savedSize is more than nearly every lease has in the file, in bytes.
const savedSize = 512

func saveLease(l Lease) savedLease {
	return savedLease{Key: FormatKey(l.Subnets), Value: FormatValue(l), Since: l.Since}
}

// DecodeSaved reads the file that Encode wrote. The file is input from outside: an entry that is no
// lease becomes a Problem of the snapshot, and a file without a usable own lease is an
// error. Whether the leases make sense is for Validate to say, as for those from etcd.
func DecodeSaved(data []byte) (Saved, error) {
	var f savedFile
	if err := json.Unmarshal(data, &f); err != nil {
		return Saved{}, fmt.Errorf("read saved leases: %w", err)
	}
	if f.Version != savedVersion {
		return Saved{}, fmt.Errorf("read saved leases: version %d is not %d", f.Version, savedVersion)
	}
	s := Saved{At: time.Unix(f.At, 0), Document: f.Document, Snapshot: Snapshot{Revision: f.Revision}}
	var err error
	if s.Self, err = f.Self.lease(); err != nil {
		return Saved{}, fmt.Errorf("read saved leases: our own: %w", err)
	}
	var leases []Lease
	for _, e := range f.Leases {
		l, err := e.lease()
		if err != nil {
			s.Snapshot.Problems = append(s.Snapshot.Problems, Problem{Object: clip(fmt.Sprintf("%q", e.Key)), Reason: err.Error()})
			continue
		}
		leases = append(leases, l)
	}
	s.Snapshot.Leases = sorted.Of(leases...)
	return s, nil
}

func (e savedLease) lease() (Lease, error) {
	subnets, err := ParseKey(e.Key)
	if err != nil {
		return Lease{}, err
	}
	l, err := ParseValue(subnets, e.Value)
	if err != nil {
		return Lease{}, err
	}
	if l.Key == (wgtypes.Key{}) {
		return Lease{}, errors.New("lease has no public key")
	}
	l.Since = e.Since
	return l, nil
}
