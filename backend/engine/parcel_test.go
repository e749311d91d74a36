package engine

import (
	"encoding/json"
	"testing"
)

// FuzzControl reads what may come over the control socket.
func FuzzControl(f *testing.F) {
	f.Add([]byte(`{"version":1,"do":"give","engine":"loden","state":1}`), 0)
	f.Add([]byte(`{"version":1,"do":"stop"}`), 0)
	f.Add([]byte(`{"files":["lock","uapi","tun"],"size":7}`), 3)
	f.Add([]byte(`{"refused":"no"}`), 0)
	f.Fuzz(func(t *testing.T, b []byte, descriptors int) {
		if o, err := parseOrder(b); err == nil && (o.Version != protocol || o.Do != doStop && o.Do != doGive) {
			t.Errorf("took %+v", o)
		}
		p, err := parseParcel(b, descriptors)
		if err != nil {
			return
		}
		if len(p.Files) != descriptors || p.Size < 0 {
			t.Errorf("took %+v with %d descriptors", p, descriptors)
		}
		if text, err := json.Marshal(p); err != nil {
			t.Error(err)
		} else if _, err := parseParcel(text, descriptors); err != nil {
			t.Errorf("read again: %v", err)
		}
	})
}

func TestOrderOfAnotherVersionIsOneClearLine(t *testing.T) {
	_, err := parseOrder([]byte(`{"version":2,"do":"give"}`))
	if want := `order "give" of version 2: this engine knows stop and give of version 1`; err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
}
