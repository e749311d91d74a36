package wait_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/loden-net/loden/config/wait"
)

func TestForWaitsTheWholeTimeUnlessTheContextEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begun := time.Now()
		if !wait.For(t.Context(), time.Hour) || time.Since(begun) != time.Hour {
			t.Errorf("returned after %v, want 1h0m0s", time.Since(begun))
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		begun = time.Now()
		if wait.For(ctx, time.Hour) || time.Since(begun) != time.Minute {
			t.Errorf("returned after %v, want 1m0s and false", time.Since(begun))
		}
	})
}

func TestSignalRemembersExactlyOneWakeUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := wait.NewSignal()
		for range 3 {
			s.Set()
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if !s.On(ctx) {
			t.Error("the wake-up that was set before the wait is lost")
		}
		if s.On(ctx) {
			t.Error("three calls of Set made more than a single wake-up")
		}
		s.Set()
		s.Clear()
		select {
		case <-s.C():
			t.Error("Clear left the wake-up pending")
		default:
		}
	})
}
