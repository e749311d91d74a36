package linediff_test

import (
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/loden-net/loden/test/sandbox/linediff"
)

func TestDiffShowsOnlyTheLinesThatDiffer(t *testing.T) {
	got := linediff.Of("a\nb\nc\nd", "a\nc\nx\nd")
	if want := "-b\n+x\n"; got != want {
		t.Errorf("diff is %q, want %q", got, want)
	}
}

// A diff is empty for equal texts only, and it removes and adds as many lines as the lengths differ.
func TestDiffAccountsForEveryLine(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		lines := rapid.SliceOfN(rapid.SampledFrom([]string{"a", "b", "c"}), 1, 8)
		want, got := lines.Draw(t, "want"), lines.Draw(t, "got")
		diff := linediff.Of(strings.Join(want, "\n"), strings.Join(got, "\n"))
		if equal := strings.Join(want, "\n") == strings.Join(got, "\n"); equal != (diff == "") {
			t.Fatalf("diff of %v and %v is %q", want, got, diff)
		}
		removed, added := strings.Count(diff, "-"), strings.Count(diff, "+")
		if removed-added != len(want)-len(got) {
			t.Fatalf("diff of %v and %v removes %d lines and adds %d: %q", want, got, removed, added, diff)
		}
	})
}
