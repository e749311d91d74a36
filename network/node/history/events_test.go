package history_test

import (
	"fmt"
	"testing"

	"pgregory.net/rapid"

	"github.com/loden-net/loden/network/node/history"
)

// The model keeps every event in a slice.
func TestEventsAreTheLastOfAllThatWereAdded(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var events history.Events
		var model []history.Event
		for range rapid.IntRange(0, 20).Draw(t, "steps") {
			var batch []history.Event
			for range rapid.IntRange(0, 150).Draw(t, "batch") {
				e := history.Event{Kind: history.Path, Object: fmt.Sprint(len(model) + len(batch))}
				batch = append(batch, e)
			}
			events.Add(batch...)
			for _, e := range batch {
				e.Number = uint64(len(model) + 1)
				model = append(model, e)
			}
			after := rapid.Uint64Range(0, uint64(len(model))).Draw(t, "after")
			got, _ := events.After(after)
			want := model[max(int(after), len(model)-history.Capacity):]
			if len(got) != len(want) {
				t.Fatalf("after %d of %d: %d events, want %d", after, len(model), len(got), len(want))
			}
			for i := range got {
				if got[i] != want[i] {
					t.Fatalf("got %+v, want %+v", got[i], want[i])
				}
			}
		}
	})
}

func TestAWaitingReaderHearsOfTheNextEvent(t *testing.T) {
	var events history.Events
	_, changed := events.After(0)
	select {
	case <-changed:
		t.Fatal("changed before any event")
	default:
	}
	events.Add(history.Event{Kind: history.Ready})
	<-changed
	if got, _ := events.After(0); len(got) != 1 || got[0].Number != 1 {
		t.Errorf("got %+v", got)
	}
}
