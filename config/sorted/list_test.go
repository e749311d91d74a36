package sorted_test

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/loden-net/loden/config/sorted"
)

// pair is an item whose place is its key.
type pair struct{ key, value int }

func (p pair) Compare(q pair) int { return cmp.Compare(p.key, q.key) }

// list returns the list of a map's pairs.
func list(m map[int]int) sorted.List[pair] {
	var items []pair
	for k, v := range m {
		items = append(items, pair{k, v})
	}
	return sorted.Of(items...)
}

// check compares a list with a map, the slow obvious model.
func check(t *rapid.T, l sorted.List[pair], m map[int]int) {
	var want []pair
	for _, k := range slices.Sorted(maps.Keys(m)) {
		want = append(want, pair{k, m[k]})
	}
	if got := l.Slice(); !slices.Equal(got, want) || l.Len() != len(want) {
		t.Fatalf("list holds %v (%d), want %v", got, l.Len(), want)
	}
}

func TestListIsAMapInOrderAfterAnyHistoryAndOldListsStay(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		keys := rapid.IntRange(0, rapid.SampledFrom([]int{5, 300}).Draw(t, "span"))
		model := rapid.MapOf(keys, rapid.IntRange(0, 2)).Draw(t, "start")
		l := list(model)
		for range rapid.IntRange(0, 400).Draw(t, "steps") {
			before, modelBefore := l, maps.Clone(model)
			k, v := keys.Draw(t, "key"), rapid.IntRange(0, 2).Draw(t, "value")
			if rapid.Bool().Draw(t, "with") {
				l, model[k] = l.With(pair{k, v}), v
			} else {
				l = l.Without(pair{key: k})
				delete(model, k)
			}
			check(t, l, model)
			check(t, before, modelBefore)
			found, ok := l.Find(pair{key: k})
			var rest []pair
			for _, p := range l.Slice() {
				if p.key >= k {
					rest = append(rest, p)
				}
			}
			if got := slices.Collect(l.From(pair{key: k})); !slices.Equal(got, rest) {
				t.Fatalf("from %d: %v, want %v", k, got, rest)
			}
			if value, there := model[k]; ok != there || found.value != value {
				t.Fatalf("found %v %v, want %v %v", found, ok, value, there)
			}
		}
	})
}

func TestDiffLeadsFromAnyListToAnyOther(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := rapid.MapOf(rapid.IntRange(0, 200), rapid.IntRange(0, 2))
		from := list(m.Draw(t, "from"))
		to := list(m.Draw(t, "to"))
		if rapid.Bool().Draw(t, "related") { // then chunks are shared
			to = from
			for range rapid.IntRange(0, 20).Draw(t, "changes") {
				p := pair{rapid.IntRange(0, 200).Draw(t, "key"), rapid.IntRange(0, 2).Draw(t, "value")}
				if rapid.Bool().Draw(t, "with") {
					to = to.With(p)
				} else {
					to = to.Without(p)
				}
			}
		}
		got, last, changes := from, -1, 0
		for c := range sorted.Diff(from, to) {
			before, had := c.Before.Get()
			after, has := c.After.Get()
			if !had && !has || before == after && had == has || max(before.key, after.key) <= last {
				t.Fatalf("change %v after place %d", c, last)
			}
			last = max(before.key, after.key)
			changes++
			if has {
				got = got.With(after)
			} else {
				got = got.Without(before)
			}
		}
		if !slices.Equal(got.Slice(), to.Slice()) {
			t.Fatalf("from %v the changes lead to %v, want %v", from.Slice(), got.Slice(), to.Slice())
		}
		if from.Equal(to) != (changes == 0) || !to.Onto(from).Equal(to) {
			t.Fatalf("equal: %v with %d changes", from.Equal(to), changes)
		}
	})
}

// A change of a list with 100,000 items compares and copies a few hundred of them.
func TestAChangeCostsWhatChanged(t *testing.T) {
	const n = 100_000
	compared := 0
	var items []counted
	for i := range n {
		items = append(items, counted{3 * i, &compared})
	}
	l := sorted.Of(items...)
	compared = 0
	next := l.With(counted{n, &compared}).Without(counted{30, &compared})
	var got []string
	for c := range sorted.Diff(l, next) {
		got = append(got, fmt.Sprint(c.Before.Present(), c.After.Present()))
	}
	if compared > 1000 || !slices.Equal(got, []string{"true false", "false true"}) {
		t.Errorf("%d comparisons for the changes %v", compared, got)
	}
}

// counted counts comparisons.
type counted struct {
	key      int
	compared *int
}

func (c counted) Compare(d counted) int {
	*c.compared++
	return cmp.Compare(c.key, d.key)
}
