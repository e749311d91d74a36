package opt_test

import (
	"encoding/json"
	"testing"

	"pgregory.net/rapid"

	"github.com/loden-net/loden/config/opt"
)

func TestNothingEqualsNothingAndASomeOnlyItself(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, b := rapid.Int().Draw(t, "a"), rapid.Int().Draw(t, "b")
		if (opt.Some(a) == opt.Some(b)) != (a == b) {
			t.Fatal("== of two values is not == of what they hold")
		}
		if opt.Some(a) == opt.None[int]() || (opt.Option[int]{}) != opt.None[int]() {
			t.Fatal("nothing and something are confused")
		}
		if opt.Some(a).Or(b) != a || opt.None[int]().Or(b) != b {
			t.Fatal("Or")
		}
	})
}

func TestDualYieldsWhatIsPresentInOrder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var d opt.Dual[int]
		want := map[opt.Family]int{}
		for _, f := range opt.Families() {
			if rapid.Bool().Draw(t, f.String()) {
				want[f] = rapid.Int().Draw(t, "value")
				d = d.With(f, want[f])
			}
		}
		last, n := -1, 0
		for f, v := range d.All() {
			if w, ok := want[f]; !ok || w != v || int(f) <= last {
				t.Fatalf("yielded %v %d, want %v", f, v, want)
			}
			last, n = int(f), n+1
		}
		if n != len(want) || d.Len() != n || d.IsZero() != (n == 0) {
			t.Fatalf("yielded %d, want %v", n, want)
		}
		if got := d.Without(opt.V4).Without(opt.V6); !got.IsZero() {
			t.Fatalf("left: %v", got)
		}
		var back opt.Dual[int]
		if b, err := json.Marshal(d); err != nil || json.Unmarshal(b, &back) != nil || back != d {
			t.Fatalf("%s reads back as %v", b, back)
		}
	})
}
