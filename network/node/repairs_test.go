package node

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/loden-net/loden/network/node/history"
)

func TestDoctorTellsTheRepairsOfTheLastMinutes(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	event := func(ago time.Duration, k history.Kind, object string) history.Event {
		return history.Event{At: now.Add(-ago), Kind: k, Object: object, Text: "add it: it was not as planned"}
	}
	if f := repairs([]history.Event{event(time.Hour, history.Repaired, "routes"), event(time.Second, history.PeerJoined, "b")}, now); f.State != Good || f.Remedy != "" {
		t.Errorf("%+v", f)
	}
	f := repairs([]history.Event{event(time.Minute, history.Repaired, "firewall"), event(2*time.Second, history.Repaired, "routes")}, now)
	if f.State != Good || !strings.HasPrefix(f.Detail, "2 in the last 10m0s: 2s ago routes: add it") || !strings.Contains(f.Remedy, "find the program") {
		t.Errorf("%+v", f)
	}
	var r recorder
	r.lost(errors.New("the key is gone"))
	got, _ := r.events.After(0)
	if len(got) != 1 || repairs(got, time.Now()).Remedy == "" {
		t.Errorf("%+v", got)
	}
}
