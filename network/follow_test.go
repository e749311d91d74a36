package network_test

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

func TestAJoinTouchesTheDeviceAloneAndListsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBed(t)
		b.run(t, time.Hour)
		defer b.end(t)
		b.offer(2)
		synctest.Wait()
		lists := b.firewall.Lists() + b.device.Lists() + b.marker.Lists()
		observed, _ := b.host.Observed()
		b.offer(3)
		synctest.Wait()
		s := b.status(t)
		if b.device.Have() != "2 peers" || s.Passes != 2 || s.Inputs.Leases.Len() != 3 {
			t.Errorf("after the join: device holds %q, status %+v", b.device.Have(), s)
		}
		if d, _ := s.State.Device.Get(); d.Peers.Len() != 2 || s.Inputs.Uplinks.IsZero() {
			t.Errorf("published: %v", s.State)
		}
		again, _ := b.host.Observed()
		if got := b.firewall.Lists() + b.device.Lists() + b.marker.Lists(); got != lists || again != observed {
			t.Errorf("%d lists and %d observations for a join", got-lists, again-observed)
		}
	})
}

func TestAJoinThatFailsIsRepairedByAWholePass(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBed(t)
		b.run(t, time.Hour)
		defer b.end(t)
		b.offer(2)
		synctest.Wait()
		b.device.Fail(nil, errors.New("refused"))
		b.offer(3)
		synctest.Wait()
		if s := b.status(t); s.Err == nil || b.device.Have() != "1 peers" {
			t.Fatalf("error %v, device %q", s.Err, b.device.Have())
		}
		b.device.Fail(nil, nil)
		lists := b.firewall.Lists()
		b.offer(4) // it does not build on the state that failed
		synctest.Wait()
		if s := b.status(t); s.Err != nil || b.device.Have() != "3 peers" || b.firewall.Lists() != lists+1 {
			t.Errorf("error %v, device %q, %d lists of the firewall", s.Err, b.device.Have(), b.firewall.Lists()-lists)
		}
	})
}

func TestABurstOfJoinsCostsATenthOfTheTimeAndAKernelEventDoesNotWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBed(t)
		b.run(t, time.Hour)
		defer b.end(t)
		b.offer(2)
		synctest.Wait()
		b.device.Delay(10 * time.Millisecond)
		before := b.status(t).Passes
		for i := range 1000 {
			b.offer(2 + i%7)
			<-time.After(time.Millisecond)
		}
		b.offer(9)
		<-time.After(time.Second)
		synctest.Wait()
		if got := b.status(t).Passes - before; got < 5 || got > 12 || b.device.Have() != "8 peers" {
			t.Errorf("%d passes of 10 ms for a second of joins; device holds %q", got, b.device.Have())
		}
		b.offer(3)
		<-time.After(20 * time.Millisecond) // the rest after this pass has begun
		b.offer(4)
		b.device.Spoil("another program's")
		before = b.status(t).Passes
		b.reconciler.Kick()
		<-time.After(15 * time.Millisecond)
		synctest.Wait()
		if got := b.status(t).Passes; got != before+1 || b.device.Have() != "3 peers" {
			t.Errorf("%d passes after a kernel event; device holds %q", got-before, b.device.Have())
		}
	})
}

func TestJoinsDoNotPostponeTheResync(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBed(t)
		b.run(t, 30*time.Second)
		defer b.end(t)
		b.offer(2)
		synctest.Wait()
		lists := b.firewall.Lists()
		for i := range 61 {
			b.offer(2 + i%3)
			<-time.After(time.Second)
		}
		synctest.Wait()
		if got := b.firewall.Lists() - lists; got != 2 {
			t.Errorf("%d whole passes in a minute of joins, want 2", got)
		}
	})
}
