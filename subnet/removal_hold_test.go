package subnet_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/loden-net/loden/config/sorted"
	"github.com/loden-net/loden/subnet"
)

const hold = 5 * time.Minute

var start = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

// crowd is n leases.
func crowd(t testing.TB, n int) []subnet.Lease {
	var out []subnet.Lease
	for i := range n {
		l := peer(t, fmt.Sprintf("node-%d", i), fmt.Sprintf("10.5.%d.0-24", i), byte(i), int64(i+1))
		l.Key[0], l.Key[1] = byte(i), 0xff
		out = append(out, l)
	}
	return out
}

func snap(leases []subnet.Lease) subnet.Snapshot {
	return subnet.Snapshot{Leases: sorted.Of(leases...)}
}

func TestRemovalHold(t *testing.T) {
	all := crowd(t, 20)
	gone := func(n int) []subnet.Lease { return all[n:] }
	type step struct {
		after    time.Duration // since the step before
		snapshot subnet.Snapshot
		confirm  bool // before it
		shown    int
	}
	var released []string
	for _, l := range all {
		released = append(released, subnet.FormatKey(l.Subnets))
	}
	leaving := slices.Clone(all)
	for i := range leaving {
		leaving[i].Leaving = true
	}
	cases := map[string][]step{
		"lets a few go at once":                {{snapshot: snap(gone(4)), shown: 16}},
		"holds more than a fifth":              {{snapshot: snap(gone(5)), shown: 20}},
		"holds an emptied store":               {{snapshot: snap(nil), shown: 20}},
		"lets go after the hold":               {{snapshot: snap(nil), shown: 20}, {after: hold - 1, snapshot: snap(nil), shown: 20}, {after: 1, snapshot: snap(nil), shown: 0}},
		"lets go at the operator's word":       {{snapshot: snap(nil), shown: 20}, {confirm: true, snapshot: snap(nil), shown: 0}, {after: hold, snapshot: snap(nil), shown: 0}},
		"lets few go that were released":       {{snapshot: subnet.Snapshot{Leases: sorted.Of(gone(4)...), Released: released[:4]}, shown: 16}},
		"holds many that were released":        {{snapshot: subnet.Snapshot{Leases: sorted.Of(gone(5)...), Released: released}, shown: 20}},
		"holds many that say they leave":       {{snapshot: snap(leaving), shown: 20}, {after: subnet.Step, snapshot: snap(leaving[15:]), shown: 20}},
		"lets a leaving node go while holding": {{snapshot: snap(gone(5)), shown: 20}, {after: subnet.Step, snapshot: subnet.Snapshot{Leases: sorted.Of(gone(6)...), Released: released[5:6]}, shown: 19}},
		"adds up leaving and vanished nodes":   {{snapshot: subnet.Snapshot{Leases: sorted.Of(gone(3)...), Released: released[:3]}, shown: 17}, {snapshot: snap(gone(6)), shown: 17 + 3 - 3 + 3}},
		"adds up removals close together":      {{snapshot: snap(gone(3)), shown: 17}, {after: time.Second, snapshot: snap(gone(6)), shown: 17 + 3}},
		"not removals far apart":               {{snapshot: snap(gone(3)), shown: 17}, {after: subnet.Step, snapshot: snap(gone(6)), shown: 14}},
		"forgets when all are back":            {{snapshot: snap(nil), shown: 20}, {after: time.Second, snapshot: snap(all), shown: 20}, {after: hold, snapshot: snap(gone(2)), shown: 18}},
		"new leases while holding":             {{snapshot: snap(nil), shown: 20}, {snapshot: snap(crowd(t, 25)[20:]), shown: 25}},
		"a held subnet has a new holder": {{snapshot: snap(nil), shown: 20}, {snapshot: snap([]subnet.Lease{
			peer(t, "other", "10.5.0.0-24", 99, 500)}), shown: 20}},
		"a held node has a new subnet": {{snapshot: snap(nil), shown: 20}, {snapshot: snap([]subnet.Lease{
			peer(t, "node-7", "10.5.200.0-24", 99, 500)}), shown: 20}},
	}
	for name, steps := range cases {
		t.Run(name, func(t *testing.T) {
			h, now := subnet.NewRemovalHold(hold, sorted.Of(all...)), start
			for i, s := range steps {
				now = now.Add(s.after)
				if s.confirm {
					h = h.Confirm()
				}
				var out subnet.Snapshot
				h, out = h.Next(now, s.snapshot)
				if out.Leases.Len() != s.shown {
					t.Fatalf("step %d: shown %d, want %d", i, out.Leases.Len(), s.shown)
				}
				if held, until := h.Held(); len(held) > 0 && (until.Before(now) || until.After(now.Add(hold))) {
					t.Fatalf("step %d: %d held until %v, now is %v", i, len(held), until, now)
				}
			}
		})
	}
}

func TestRemovalHoldNeverHoldsThreeOfFew(t *testing.T) {
	for n := range 4 {
		_, out := subnet.NewRemovalHold(hold, sorted.Of(crowd(t, n)...)).Next(start, subnet.Snapshot{})
		if out.Leases.Len() != 0 {
			t.Errorf("%d of %d leases held", out.Leases.Len(), n)
		}
	}
}

// Whatever comes: what is in the store is shown, nothing is shown twice, nothing is shown
// longer than the hold, and the state that went in is not changed.
func TestRemovalHoldShowsTheStoreAndForgetsInTime(t *testing.T) {
	all := crowd(t, 30)
	rapid.Check(t, func(t *rapid.T) {
		h, now := subnet.NewRemovalHold(hold, subnet.Leases{}), start
		lastSeen := map[string]time.Time{}
		for range rapid.IntRange(1, 30).Draw(t, "steps") {
			now = now.Add(time.Duration(rapid.IntRange(0, 200).Draw(t, "seconds")) * time.Second)
			var s subnet.Snapshot
			switch rapid.IntRange(0, 3).Draw(t, "kind") {
			case 0:
				s = snap(all)
			case 1: // emptied
			default:
				for _, l := range all {
					if rapid.Bool().Draw(t, "there") {
						s.Leases = s.Leases.With(l)
					}
				}
			}
			before, _ := h.Held()
			next, out := h.Next(now, s)
			if again, _ := h.Held(); !slices.Equal(before, again) {
				t.Fatal("Next changed the state it was called on")
			}
			h = next
			seen := map[string]bool{}
			for l := range out.Leases.All() {
				if seen[l.Node] {
					t.Fatalf("%s is shown twice", l.Node)
				}
				seen[l.Node] = true
				if !slices.Contains(s.Leases.Slice(), l) && now.Sub(lastSeen[l.Node]) > hold+200*time.Second {
					t.Fatalf("%s is shown %v after it was last there", l.Node, now.Sub(lastSeen[l.Node]))
				}
			}
			for l := range s.Leases.All() {
				lastSeen[l.Node] = now
				if !seen[l.Node] {
					t.Fatalf("%s is in the store and not shown", l.Node)
				}
			}
		}
	})
}
