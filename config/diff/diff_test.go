package diff_test

import (
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/loden-net/loden/config/diff"
)

func TestAddThenDeleteTurnsHaveIntoWant(t *testing.T) {
	small := rapid.SliceOf(rapid.IntRange(0, 9))
	rapid.Check(t, func(t *rapid.T) {
		have, want := small.Draw(t, "have"), small.Draw(t, "want")
		add, del := diff.Sets(have, want)
		set := map[int]bool{}
		for _, v := range have {
			set[v] = true
		}
		for _, v := range add {
			if set[v] {
				t.Fatalf("%d is added twice, or was there", v)
			}
			set[v] = true
		}
		for _, v := range del {
			if !set[v] {
				t.Fatalf("%d is deleted and was not there", v)
			}
			delete(set, v)
		}
		for v := range 10 {
			if set[v] != slices.Contains(want, v) {
				t.Fatalf("have %v, want %v: %d is wrong after add %v, del %v", have, want, v, add, del)
			}
		}
	})
}
