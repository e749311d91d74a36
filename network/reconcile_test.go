package network_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rs/zerolog"

	"github.com/loden-net/loden/config/diff"
	"github.com/loden-net/loden/config/opt"
	"github.com/loden-net/loden/config/sorted"
	"github.com/loden-net/loden/network"
	"github.com/loden-net/loden/network/networktest"
	"github.com/loden-net/loden/subnet"
)

// bed is a Reconciler over fakes on virtual time: a firewall, a device and a readiness
// marker, on a host with two uplinks.
type bed struct {
	reconciler               *network.Reconciler
	host                     *networktest.Host
	record                   *networktest.Record
	firewall, device, marker *networktest.Part
	log                      *strings.Builder
	stop                     context.CancelFunc
	ended                    chan error
}

// newBed returns a bed that makes no pass yet.
func newBed(t *testing.T) *bed {
	in := inputs(t, dualDocument, 0)
	b := &bed{host: &networktest.Host{}, record: &networktest.Record{}, log: &strings.Builder{}, ended: make(chan error, 1)}
	b.host.Set(in.HostState, nil)
	present := func(s network.State) string {
		if d, ok := s.Device.Get(); ok {
			return fmt.Sprintf("%d peers", d.Peers.Len())
		}
		return ""
	}
	b.firewall = networktest.NewPart("firewall", b.record, func(s network.State) string {
		if s.Device.Present() {
			return "rules"
		}
		return ""
	})
	b.device = networktest.NewPart("device", b.record, present)
	b.marker = networktest.NewPart("env", b.record, present)
	b.reconciler = network.New(network.Options{
		Self: in.Self, Host: b.host, Log: zerolog.New(b.log),
		Parts: []network.Part{b.firewall.Part(), b.device.Following(), b.marker.Readiness()},
	})
	return b
}

// run starts the Reconciler with the lease of node 1. It ends with the test.
func (b *bed) run(t *testing.T, resync time.Duration) {
	in := inputs(t, dualDocument, 0)
	b.reconciler.Update(func(have *network.Inputs) { have.Network, have.Lease = in.Network, in.Lease })
	ctx, stop := context.WithCancel(t.Context())
	b.stop = stop
	go func() { b.ended <- b.reconciler.Run(ctx, resync) }()
	synctest.Wait() // the kick of Update is used up
}

// end stops the Reconciler and waits for it.
func (b *bed) end(t *testing.T) {
	b.stop()
	if err := <-b.ended; err != nil {
		t.Error(err)
	}
}

// offer offers the leases of nodes 1 to n.
func (b *bed) offer(n int) {
	var s subnet.Snapshot
	for i := 1; i <= n; i++ {
		s.Leases = s.Leases.With(node(i))
	}
	b.reconciler.Offer(s)
}

// status fails the test before the first pass.
func (b *bed) status(t *testing.T) network.Status {
	t.Helper()
	s, ok := b.reconciler.Status()
	if !ok {
		t.Fatal("no pass yet")
	}
	return s
}

func TestNoPassBeforeLeaseAndSnapshotAreKnown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBed(t)
		b.run(t, time.Hour) // with a lease, without a snapshot: "no peers" would not be known
		defer b.end(t)
		synctest.Wait()
		if _, ok := b.reconciler.Status(); ok || b.firewall.Lists() > 0 {
			t.Error("a pass without a snapshot")
		}
		b.offer(3)
		synctest.Wait()
		if s := b.status(t); s.Passes != 1 || !s.Complete || b.device.Have() != "2 peers" {
			t.Errorf("after the snapshot: %d passes, device holds %q", s.Passes, b.device.Have())
		}
	})
}

func TestPartsAreAppliedInOrderAndTornDownBackwards(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBed(t)
		b.run(t, time.Hour)
		b.offer(2)
		synctest.Wait()
		if got, want := b.record.Take(), []string{"firewall: set rules", "device: set 1 peers", "env: set 1 peers"}; !slices.Equal(got, want) {
			t.Errorf("applied %q, want %q", got, want)
		}
		b.end(t)
		changes, err := b.reconciler.Apply(t.Context(), network.State{})
		if err != nil || len(changes) != 3 {
			t.Errorf("teardown: %v, %v", changes, err)
		}
		if got, want := b.record.Take(), []string{"env: delete ", "device: delete ", "firewall: delete "}; !slices.Equal(got, want) {
			t.Errorf("torn down %q, want %q", got, want)
		}
	})
}

func TestAThousandSnapshotsDuringOnePassCostOneMorePass(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBed(t)
		b.device.Delay(time.Second)
		b.run(t, time.Hour)
		defer b.end(t)
		b.offer(2)
		synctest.Wait() // in the middle of the first pass
		for range 1000 {
			b.offer(3)
		}
		b.offer(4)
		<-time.After(time.Minute)
		synctest.Wait()
		if s := b.status(t); s.Passes != 2 || b.device.Have() != "3 peers" || s.Took != time.Second {
			t.Errorf("%d passes, want 2; device holds %q, the last pass took %v", s.Passes, b.device.Have(), s.Took)
		}
	})
}

func TestFailedPassIsRepeatedAfterPausesThatDouble(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBed(t)
		b.firewall.Fail(nil, errors.New("refused"))
		b.run(t, time.Hour)
		defer b.end(t)
		b.offer(2)
		start := time.Now()
		var at []time.Duration // of the passes, in seconds
		for seen := uint64(0); len(at) < 8; {
			synctest.Wait()
			if s := b.status(t); s.Passes > seen {
				seen = s.Passes
				at = append(at, time.Since(start).Round(time.Second))
			}
			<-time.After(100 * time.Millisecond)
		}
		want := []time.Duration{0, 1, 3, 7, 15, 31, 61, 91} // 1, 2, 4, 8, 16, then 30 s each
		for i := range want {
			if at[i] != want[i]*time.Second {
				t.Fatalf("passes at %v, want %v s", at, want)
			}
		}
		b.firewall.Fail(nil, nil)
		<-time.After(31 * time.Second)
		synctest.Wait()
		s := b.status(t)
		if s.Err != nil || s.Failures != 8 || !s.Complete {
			t.Fatalf("after the repair: %d failures, error %v", s.Failures, s.Err)
		}
		b.firewall.Fail(errors.New("again"), nil)
		b.reconciler.Kick()
		synctest.Wait()
		failed := b.status(t).Passes
		<-time.After(firstPause + 100*time.Millisecond)
		synctest.Wait()
		if got := b.status(t).Passes; got != failed+1 {
			t.Errorf("the pause after a success begins with 1 s again: %d passes, want %d", got, failed+1)
		}
	})
}

const firstPause = time.Second

func TestKernelEventWakesAtOnceAndResyncFindsWhatNoEventTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBed(t)
		b.run(t, 30*time.Second)
		defer b.end(t)
		b.offer(2)
		synctest.Wait()
		start := time.Now()
		b.device.Spoil("another program's")
		b.reconciler.Kick() // as a watcher does
		synctest.Wait()
		if b.device.Have() != "1 peers" || time.Since(start) > 0 {
			t.Errorf("after an event: device holds %q after %v", b.device.Have(), time.Since(start))
		}
		b.device.Spoil("another program's")
		<-time.After(29 * time.Second)
		synctest.Wait()
		if b.device.Have() == "1 peers" {
			t.Error("repaired without event or resync")
		}
		<-time.After(2 * time.Second)
		synctest.Wait()
		if b.device.Have() != "1 peers" {
			t.Errorf("after the resync: device holds %q", b.device.Have())
		}
	})
}

func TestReadinessMarkerIsNotWrittenAfterAnError(t *testing.T) {
	for _, tt := range []struct {
		name      string
		list, run error
	}{{"listing fails", errors.New("refused"), nil}, {"a change fails", nil, errors.New("refused")}} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBed(t)
				b.firewall.Fail(tt.list, tt.run)
				b.run(t, time.Hour)
				defer b.end(t)
				b.offer(2)
				synctest.Wait()
				s := b.status(t)
				if b.marker.Have() != "" || b.device.Have() != "1 peers" || s.Complete || !strings.Contains(fmt.Sprint(s.Err), "firewall: ") {
					t.Errorf("marker %q, device %q, complete %v, error %v", b.marker.Have(), b.device.Have(), s.Complete, s.Err)
				}
				b.firewall.Fail(nil, nil)
				<-time.After(time.Second)
				synctest.Wait()
				if s := b.status(t); b.marker.Have() != "1 peers" || !s.Complete || s.Err != nil {
					t.Errorf("after the repair: marker %q, error %v", b.marker.Have(), s.Err)
				}
				// A later error takes no marker back: the data path stands.
				b.firewall.Fail(tt.list, tt.run)
				b.firewall.Spoil("")
				b.reconciler.Kick()
				synctest.Wait()
				if s := b.status(t); b.marker.Have() != "1 peers" || !s.Complete || s.Err == nil {
					t.Errorf("after a later error: marker %q, error %v", b.marker.Have(), s.Err)
				}
			})
		})
	}
}

// A part that could list one family only still changes that family; changes that do not
// rest on each other do not stop each other.
func TestChangesOfOneFamilyRunAlthoughTheOtherFails(t *testing.T) {
	for _, independent := range []bool{false, true} {
		var ran []string
		change := func(name string, err error) diff.Change {
			return diff.Change{Verb: "add", Object: name, Run: func(context.Context) error { ran = append(ran, name); return err }}
		}
		r := network.New(network.Options{Host: &networktest.Host{}, Parts: []network.Part{{Name: "routes", Independent: independent,
			Changes: func(context.Context, network.State) ([]diff.Change, error) {
				return []diff.Change{change("IPv4", nil), change("IPv6", errors.New("refused")), change("IPv4 again", nil)}, errors.New("IPv6 is not listed")
			}}}})
		done, err := r.Apply(t.Context(), network.State{})
		want := []string{"IPv4", "IPv6"}
		if independent {
			want = append(want, "IPv4 again")
		}
		if !slices.Equal(ran, want) || len(done) != len(want)-1 || err == nil ||
			!strings.Contains(err.Error(), "routes: add: refused") && !strings.Contains(err.Error(), "IPv6 is not listed") {
			t.Errorf("independent %v: ran %q, want %q; done %v, %v", independent, ran, want, done, err)
		}
	}
}

func TestTeardownRemovesTheMarkerAlthoughAPartFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBed(t)
		b.run(t, time.Hour)
		b.offer(2)
		synctest.Wait()
		b.end(t)
		b.device.Fail(errors.New("refused"), nil)
		_, err := b.reconciler.Apply(t.Context(), network.State{})
		if err == nil || b.marker.Have() != "" || b.firewall.Have() != "" {
			t.Errorf("marker %q, firewall %q, error %v", b.marker.Have(), b.firewall.Have(), err)
		}
	})
}

func TestLastObservedHostStandsWhenTheKernelDoesNotAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBed(t)
		b.run(t, time.Hour)
		defer b.end(t)
		b.offer(2)
		synctest.Wait()
		before := b.reconciler.Inputs().HostState
		b.host.Set(network.HostState{}, errors.New("no answer"))
		b.offer(3)
		b.reconciler.Kick()
		synctest.Wait()
		s := b.status(t)
		if s.Err == nil || b.device.Have() != "2 peers" || b.reconciler.Inputs().Uplinks != before.Uplinks {
			t.Errorf("error %v, device %q", s.Err, b.device.Have())
		}
		observed, expired := b.host.Observed()
		if uint64(observed) != s.Passes || expired == 0 {
			t.Errorf("observed %d times in %d passes, expired %d times", observed, s.Passes, expired)
		}
	})
}

func TestChangesCarryTheNameOfTheirPart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBed(t)
		b.run(t, time.Hour)
		defer b.end(t)
		b.offer(2)
		synctest.Wait()
		s := b.status(t)
		for _, name := range []string{"firewall", "device", "env"} {
			if s.Changes[name] != 1 {
				t.Errorf("%d changes of %q, want 1; all: %v", s.Changes[name], name, s.Changes)
			}
		}
		b.offer(4)
		want, _ := network.Plan(b.reconciler.Inputs())
		b.device.Spoil("another")
		pending, err := b.reconciler.Pending(t.Context(), want)
		if err != nil || len(pending) == 0 || b.device.Have() != "another" {
			t.Errorf("pending %v, %v; device holds %q", pending, err, b.device.Have())
		}
		for _, c := range pending {
			if c.Part != "device" && c.Part != "env" {
				t.Errorf("pending change %v", c)
			}
		}
		b.device.Fail(errors.New("refused"), nil)
		if _, err := b.reconciler.Pending(t.Context(), want); err == nil {
			t.Error("an error of a part is lost")
		}
	})
}

func TestProblemsAreLoggedOnceAndWhenTheyAreSolved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBed(t)
		b.run(t, time.Second)
		defer b.end(t)
		bad := node(2)
		bad.Endpoints = bad.Endpoints.Without(opt.V4).Without(opt.V6)
		b.reconciler.Offer(subnet.Snapshot{Leases: sorted.Of(node(1), bad)})
		<-time.After(10 * time.Second)
		synctest.Wait()
		if got := strings.Count(b.log.String(), `"message":"problem"`); got != 1 || len(b.status(t).Problems) != 1 {
			t.Errorf("logged %d times, want once; problems %v", got, b.status(t).Problems)
		}
		b.offer(2)
		synctest.Wait()
		if !strings.Contains(b.log.String(), "problem solved") || len(b.status(t).Problems) != 0 {
			t.Errorf("problems %v", b.status(t).Problems)
		}
	})
}

func TestPassThatIsStoppedInTheMiddlePublishesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBed(t)
		b.firewall.Delay(time.Hour)
		b.run(t, time.Hour)
		b.offer(2)
		synctest.Wait()
		b.end(t)
		if _, ok := b.reconciler.Status(); ok || b.device.Lists() > 0 {
			t.Error("the rest of a stopped pass was made")
		}
	})
}
