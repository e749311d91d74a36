package firewall_test

import (
	"context"
	"fmt"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"github.com/loden-net/loden/config/opt"
	"github.com/loden-net/loden/config/set"
	"github.com/loden-net/loden/network/firewall"
	"github.com/loden-net/loden/test/sandbox/sandboxtest"
)

// TestNoConnectionLeavesUnmasqueradedDuringAHundredChanges opens new connections from the
// pod to the outside all the time, both families, while the rules are installed, changed a
// hundred times, and found again by other processes. The outside must never see a pod's
// own address: neither flannel's flush at start nor its order of remove and add is safe.
func TestNoConnectionLeavesUnmasqueradedDuringAHundredChanges(t *testing.T) {
	onEachWorld(t, func(t *testing.T, b bed, w world) {
		echo(t, w.outside)
		p := policy()
		p.Guard = firewall.Off // it would hide the packets that this test looks for
		c := p.Config("loden0", scopes())
		w.install(t, b, c)
		var asked, bare atomic.Int64
		ctx, stop := cancelable(t)
		done := make(chan error, 2)
		for _, f := range opt.Families() {
			go func() { done <- w.keepAsking(ctx, addressesOf(f), &asked, &bare) }()
		}
		for i := range 100 {
			change := p
			change.RandomFully = i%2 == 0
			change.Exclude = set.NewPrefixes(prefix(fmt.Sprintf("198.51.100.%d/32", i)), prefix(fmt.Sprintf("2001:db8:1::%x/128", i)))
			before := asked.Load()
			w.install(t, b, change.Config("loden0", scopes()))
			sandboxtest.Until(t, 20*time.Second, "a connection between two changes", func() error {
				if asked.Load() == before {
					return errSilence
				}
				return nil
			})
		}
		stop()
		for range 2 {
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
		t.Logf("%d new connections during 100 changes, %d with the pod's own address", asked.Load(), bare.Load())
		if bare.Load() > 0 {
			t.Errorf("%d of %d connections were seen with the pod's own address", bare.Load(), asked.Load())
		}
	})
}

// keepAsking opens new connections from the pod until ctx ends, and counts them and those
// that were seen with the pod's own address.
func (w world) keepAsking(ctx context.Context, a addresses, asked, bare *atomic.Int64) error {
	return w.pod.Do(func() error {
		for ctx.Err() == nil {
			seen, err := oneQuestion(a.outside)
			if err != nil {
				return err
			}
			if seen == a.pod {
				bare.Add(1)
			}
			asked.Add(1)
			select { // as fast as it can would leave no processor for the changes
			case <-ctx.Done():
			case <-time.After(time.Millisecond):
			}
		}
		return nil
	})
}

// oneQuestion asks from a new port, which makes a new connection for the kernel, until it
// is answered.
func oneQuestion(to string) (seen string, err error) {
	conn, err := net.Dial("udp", net.JoinHostPort(to, fmt.Sprint(echoPort)))
	if err != nil {
		return "", err
	}
	defer conn.Close()
	buf := make([]byte, 100)
	for range 50 {
		if _, err := conn.Write([]byte("who?")); err != nil {
			return "", err
		}
		if err := conn.SetReadDeadline(time.Now().Add(500 * time.Millisecond)); err != nil {
			return "", err
		}
		n, err := conn.Read(buf)
		if err == nil {
			host, _, err := net.SplitHostPort(string(buf[:n]))
			return host, err
		}
	}
	return "", errSilence
}

// TestR12VandalismIsNoticedAndRepaired: another program changes the rules, the kernel
// announces it (where it announces at all) and a single pass repairs them.
func TestR12VandalismIsNoticedAndRepaired(t *testing.T) {
	onEach(t, func(t *testing.T, b bed) {
		f := b.open(t)
		apply(t, f, whole())
		want := sorted(b.holds(t, opt.V4) + b.holds(t, opt.V6))
		notices := make(chan struct{}, 1)
		ctx, stop := cancelable(t)
		done := watch(t, ctx, f, notices)
		for name, script := range b.vandalism(t) {
			drainNotices(t, f, notices)
			began := time.Now()
			shell(t, script)
			if !b.legacy {
				select {
				case <-notices:
				case <-time.After(20 * time.Second):
					t.Fatalf("%s: the kernel said nothing", name)
				}
			}
			changes, err := f.Changes(t.Context(), whole())
			if err != nil || len(changes) == 0 {
				t.Fatalf("%s: not seen: %v, %v\n%s", name, changes, err, ruleset(t))
			}
			for _, c := range changes {
				if err := c.Run(t.Context()); err != nil {
					t.Fatalf("%s: %v", name, err)
				}
			}
			t.Logf("%s: noticed and repaired in %v by %v", name, time.Since(began).Round(time.Millisecond), changes)
			apply(t, f, whole())
			if got := sorted(b.holds(t, opt.V4) + b.holds(t, opt.V6)); got != want {
				t.Fatalf("%s: repaired to\n%s\nwant\n%s", name, got, want)
			}
		}
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}
