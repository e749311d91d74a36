package firewall_test

import (
	"errors"
	"slices"
	"testing"
	"testing/synctest"

	"github.com/rs/zerolog"

	"github.com/loden-net/loden/config/opt"
	"github.com/loden-net/loden/network/firewall"
)

// TestFakeMakesTheSameChangesAsTheKernel compares the fake with each driver, step by step.
func TestFakeMakesTheSameChangesAsTheKernel(t *testing.T) {
	steps := []firewall.Config{
		whole(),
		policy().Config("loden0", scopes().With(opt.V4, scope("10.244.0.0/16", "10.244.9.0/24"))),
		policy().Config("loden0", scopes().Without(opt.V6)),
		{},
		{},
	}
	onEach(t, func(t *testing.T, b bed) {
		real := b.open(t)
		pretended, fake := firewall.NewFake(zerolog.New(zerolog.NewTestWriter(t)))
		for i, want := range steps {
			texts := func(f *firewall.Firewall) (out []string) {
				for _, c := range apply(t, f, want) {
					out = append(out, c.String())
				}
				return out
			}
			if got, want := texts(pretended), texts(real); !slices.Equal(got, want) {
				t.Errorf("step %d: the fake makes %q, the kernel %q", i, got, want)
			}
			if !fake.Holds(want) {
				t.Errorf("step %d: the fake does not hold the desired rules", i)
			}
		}
		if !fake.Empty() {
			t.Error("the fake holds rules after the zero configuration")
		}
	})
}

func TestFakeFailsAndAnnouncesAsAsked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, fake := firewall.NewFake(zerolog.Nop())
		ctx, stop := cancelable(t)
		notices := 0
		done := make(chan error, 1)
		go func() { done <- f.Watch(ctx, func() { notices++ }) }()
		synctest.Wait()
		apply(t, f, whole())
		synctest.Wait()
		own := notices
		fake.Flush()
		synctest.Wait()
		if own == 0 || notices != own+1 || !fake.Empty() {
			t.Errorf("%d notices of changes, %d after a flush, empty %v", own, notices, fake.Empty())
		}
		fault := errors.New("no such luck")
		fake.Fail(fault)
		if _, err := f.Changes(t.Context(), whole()); !errors.Is(err, fault) {
			t.Errorf("want %v, got %v", fault, err)
		}
		fake.Fail(nil)
		fake.Refuse(opt.V4, 3, 4)
		counters, err := f.Counters(t.Context(), whole())
		if got, _ := counters.V4.Get(); err != nil || got != (firewall.Refused{In: 3, Out: 4}) {
			t.Errorf("counters %+v, %v", counters, err)
		}
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}
