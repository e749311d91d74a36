package engine

import (
	"encoding/json"
	"testing"
)

// FuzzControl feeds arbitrary messages to the parsers of the control socket.
func FuzzControl(f *testing.F) {
	f.Add([]byte(`{"version":1,"do":"give","engine":"loden","state":1}`), 0)
	f.Add([]byte(`{"version":1,"do":"stop"}`), 0)
	f.Add([]byte(`{"files":["lock","uapi","tun"],"size":7}`), 3)
	f.Add([]byte(`{"refused":"no"}`), 0)
	f.Fuzz(func(t *testing.T, b []byte, descriptors int) {
		if o, err := parseRequest(b); err == nil && (o.Version != protocol || o.Do != opStop && o.Do != opHandOver && o.Do != opStatus) {
			t.Errorf("took %+v", o)
		}
		p, err := parseReply(b, descriptors)
		if err != nil {
			return
		}
		if len(p.Files) != descriptors || p.Size < 0 {
			t.Errorf("took %+v with %d descriptors", p, descriptors)
		}
		if text, err := json.Marshal(p); err != nil {
			t.Error(err)
		} else if _, err := parseReply(text, descriptors); err != nil {
			t.Errorf("read again: %v", err)
		}
	})
}

func TestRequestOfAnotherVersionIsOneClearLine(t *testing.T) {
	_, err := parseRequest([]byte(`{"version":2,"do":"give"}`))
	if want := `request "give" of version 2: this engine knows stop, give and status of version 1`; err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
}
