package subnet_test

import (
	"bytes"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/loden-net/loden/config/sorted"
	"github.com/loden-net/loden/subnet"
)

func saved(t testing.TB) subnet.Saved {
	return subnet.Saved{
		At: time.Unix(1763800000, 0), Document: []byte(dualDoc), Self: peer(t, "self", "10.5.1.0-24", 1, 9),
		Snapshot: subnet.Snapshot{Revision: 77, Leases: sorted.Of(peer(t, "a", "10.5.2.0-24&fd00:5:0:2::-64", 2, 3), peer(t, "self", "10.5.1.0-24", 1, 9))},
	}
}

func TestSavedReadsBackWhatWasWritten(t *testing.T) {
	want := saved(t)
	got, err := subnet.DecodeSaved(want.Encode())
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, %v\nwant %+v", got, err, want)
	}
}

func TestSavedSkipsAnEntryThatIsNoLease(t *testing.T) {
	data := bytes.Replace(saved(t).Encode(), []byte("10.5.2.0-24"), []byte("10.5.2.1-24"), 1)
	got, err := subnet.DecodeSaved(data)
	if err != nil || got.Snapshot.Leases.Len() != 1 || len(got.Snapshot.Problems) != 1 {
		t.Errorf("got %+v, %v", got, err)
	}
}

func TestSavedRefuses(t *testing.T) {
	good := string(saved(t).Encode())
	for name, data := range map[string]string{
		"nothing": "", "half a file": good[:len(good)/2], "noise": "\x00\x01\x02", "another version": strings.Replace(good, `"version":1`, `"version":2`, 1),
		"no own lease": `{"version":1,"leases":[]}`, "own lease without a key": `{"version":1,"self":{"key":"10.5.1.0-24","value":{}}}`,
	} {
		if got, err := subnet.DecodeSaved([]byte(data)); err == nil {
			t.Errorf("%s: read as %+v", name, got)
		}
	}
}

func FuzzSaved(f *testing.F) {
	good := saved(f).Encode()
	f.Add(good)
	f.Add(good[:len(good)/2])
	f.Add([]byte(`{"version":1,"self":{"key":"10.5.1.0-24","value":null}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		s, err := subnet.DecodeSaved(data)
		if err != nil {
			return
		}
		s.Snapshot.Problems = nil
		again, err := subnet.DecodeSaved(s.Encode())
		if err != nil || !reflect.DeepEqual(again.Snapshot, s.Snapshot) || again.Self != s.Self {
			t.Fatalf("read %+v, read back %+v, %v", s, again, err)
		}
	})
}
