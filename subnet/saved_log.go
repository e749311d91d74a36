package subnet

import (
	"bytes"
	"encoding/json"
	"fmt"
	"hash/fnv"

	"github.com/loden-net/loden/config/sorted"
)

// The file of the saved leases is followed by a log, so that a join writes a line and not the
// leases of all nodes. The first line names the file that the log follows; a log of another file
// is not used. A line that was cut off by a crash ends the log. What the log misses then, the store has.
//
//	{"follows":"a3f0c2d41b7e9655"}
//	{"put":{"key":"10.5.1.0-24","value":{"PublicIP":"192.0.2.1",...},"since":17}}
//	{"drop":{"key":"10.5.2.0-24","since":16}}
type savedLine struct {
	Follows string      `json:"follows,omitempty"`
	Put     *savedLease `json:"put,omitempty"`
	Drop    *savedLease `json:"drop,omitempty"`
}

// LogOf returns the first line of the log that follows a file that Encode wrote.
func LogOf(file []byte) []byte {
	h := fnv.New64a()
	_, _ = h.Write(file) // a hash never fails to write
	return savedLine{Follows: fmt.Sprintf("%016x", h.Sum64())}.text()
}

// LogChanges returns the lines that lead from some leases to others; none for equal leases.
func LogChanges(from, to Leases) []byte {
	var b bytes.Buffer
	for c := range sorted.Diff(from, to) {
		if l, ok := c.After.Get(); ok {
			put := saveLease(l)
			b.Write(savedLine{Put: &put}.text())
		} else if l, ok := c.Before.Get(); ok {
			b.Write(savedLine{Drop: &savedLease{Key: FormatKey(l.Subnets), Since: l.Since}}.text())
		}
	}
	return b.Bytes()
}

// WithLog returns the saved leases after the changes of a log. file is what s was decoded from. A
// log that follows another file has no effect, and a line that is damaged ends the log.
func (s Saved) WithLog(file, log []byte) Saved {
	rest, ours := bytes.CutPrefix(log, LogOf(file))
	if !ours {
		return s
	}
	for line := range bytes.Lines(rest) {
		var e savedLine
		if !bytes.HasSuffix(line, []byte("\n")) || json.Unmarshal(line, &e) != nil {
			break
		}
		switch {
		case e.Put != nil:
			if l, err := e.Put.lease(); err == nil {
				s.Snapshot.Leases = s.Snapshot.Leases.With(l)
			}
		case e.Drop != nil:
			if subnets, err := ParseKey(e.Drop.Key); err == nil {
				s.Snapshot.Leases = s.Snapshot.Leases.Without(Lease{Subnets: subnets, Since: e.Drop.Since})
			}
		}
	}
	return s
}

// text returns the line.
func (l savedLine) text() []byte {
	data, _ := json.Marshal(l) // strings, numbers, and JSON that FormatValue made: it cannot fail
	return append(data, '\n')
}
