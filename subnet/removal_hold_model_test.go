package subnet_test

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"testing"
	"time"

	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"
	"pgregory.net/rapid"

	"github.com/loden-net/loden/config/opt"
	"github.com/loden-net/loden/config/sorted"
	"github.com/loden-net/loden/subnet"
)

// slowHold is the removal hold as it reads in the comment of RemovalHold, with all leases
// compared and indexed for every snapshot: the slow obvious model.
type slowHold struct {
	hold   time.Duration
	shown  []subnet.Lease
	recent []gone // let through within the last Step
	left   []gone // the same of leases that were given back
	held   []gone
}

// gone is a lease that the store no longer has, and when the hold first saw that.
type gone struct {
	lease subnet.Lease
	at    time.Time
}

// next takes a snapshot and returns the leases that are shown.
func (h *slowHold) next(now time.Time, s subnet.Snapshot) []subnet.Lease {
	stored := s.Leases.Slice()
	vanished, left := h.missing(now, stored, s.Released)
	past := func(r gone) bool { return now.Sub(r.at) >= subnet.Step || replaced(stored, r.lease) }
	h.recent = slices.DeleteFunc(append(h.recent, vanished...), past)
	h.left = slices.DeleteFunc(append(h.left, left...), past)
	h.held = slices.DeleteFunc(h.held, func(r gone) bool { return now.Sub(r.at) >= h.hold || replaced(stored, r.lease) })
	total := len(stored) + len(h.recent) + len(h.left) + len(h.held)
	many := len(h.recent)+len(h.left) > max(3, total/5)
	if many || len(h.held) > 0 {
		h.held, h.recent = append(h.held, h.recent...), nil
	}
	if many {
		h.held, h.left = append(h.held, h.left...), nil
	}
	h.shown = stored
	for _, r := range h.held {
		h.shown = append(h.shown, r.lease)
	}
	slices.SortFunc(h.shown, subnet.Lease.Compare)
	return h.shown
}

// missing returns the leases that were shown, are absent, and are not held already.
func (h *slowHold) missing(now time.Time, stored []subnet.Lease, released []string) (vanished, left []gone) {
	there := map[opt.Dual[netip.Prefix]]bool{}
	for _, l := range stored {
		there[l.Subnets] = true
	}
	for _, r := range h.held {
		there[r.lease.Subnets] = true
	}
	for _, l := range h.shown {
		switch {
		case there[l.Subnets]:
		case l.Leaving || slices.Contains(released, subnet.FormatKey(l.Subnets)):
			left = append(left, gone{l, now})
		default:
			vanished = append(vanished, gone{l, now})
		}
	}
	return vanished, left
}

// replaced reports whether a stored lease has a subnet, the name or the key of l.
func replaced(stored []subnet.Lease, l subnet.Lease) bool {
	return slices.ContainsFunc(stored, func(s subnet.Lease) bool {
		for f, p := range l.Subnets.All() {
			if s.Subnets.Of(f) == opt.Some(p) {
				return true
			}
		}
		return s.Node != "" && s.Node == l.Node || s.Key == l.Key
	})
}

// confirm lets go of the held leases.
func (h *slowHold) confirm() {
	h.shown = slices.DeleteFunc(h.shown, func(l subnet.Lease) bool {
		return slices.ContainsFunc(h.held, func(r gone) bool { return r.lease == l })
	})
	h.held, h.recent, h.left = nil, nil, nil
}

// The hold looks only at what has changed since the last snapshot, and shows after any history
// what a hold shows that looks at everything.
func TestRemovalHoldShowsWhatTheSlowHoldShows(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		store := map[opt.Dual[netip.Prefix]]subnet.Lease{} // an etcd key has one lease
		revision := int64(0)
		draw := func() subnet.Lease {
			revision++
			l := subnet.Lease{Since: revision, Key: wgtypes.Key{byte(rapid.IntRange(1, 12).Draw(t, "key"))}}
			if n := rapid.IntRange(0, 12).Draw(t, "node"); n > 0 {
				l.Node = fmt.Sprintf("n%d", n)
			}
			l.Subnets = l.Subnets.With(opt.V4, netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 5, byte(rapid.IntRange(1, 16).Draw(t, "v4")), 0}), 24))
			if rapid.Bool().Draw(t, "dual") {
				l.Subnets = l.Subnets.With(opt.V6, netip.PrefixFrom(netip.AddrFrom16([16]byte{0xfd, 5, 7: byte(rapid.IntRange(1, 3).Draw(t, "v6"))}), 64))
			}
			return l
		}
		list := func() subnet.Leases { return sorted.Of(slices.Collect(maps.Values(store))...) }
		for range rapid.IntRange(0, 12).Draw(t, "at the start") {
			l := draw()
			store[l.Subnets] = l
		}
		now := start
		fast, slow := subnet.NewRemovalHold(hold, list()), slowHold{hold: hold, shown: list().Slice()}
		for range rapid.IntRange(1, 25).Draw(t, "steps") {
			now = now.Add(rapid.SampledFrom([]time.Duration{0, time.Second, subnet.Step, hold}).Draw(t, "pause"))
			s := subnet.Snapshot{}
			switch rapid.IntRange(0, 9).Draw(t, "event") {
			case 0:
				fast = fast.Confirm()
				slow.confirm()
			case 1:
				clear(store)
			case 2, 3, 4:
				for range rapid.IntRange(1, 4).Draw(t, "joins") {
					l := draw()
					store[l.Subnets] = l
				}
			default:
				for _, l := range list().Slice() {
					switch rapid.IntRange(0, 5).Draw(t, "change") {
					case 0:
						delete(store, l.Subnets)
						if rapid.Bool().Draw(t, "released") {
							s.Released = append(s.Released, subnet.FormatKey(l.Subnets))
						}
					case 1:
						l.Leaving = !l.Leaving
						store[l.Subnets] = l
					}
				}
			}
			s.Leases = list()
			var out subnet.Snapshot
			fast, out = fast.Next(now, s)
			want := slow.next(now, s)
			if got := out.Leases.Slice(); !slices.Equal(got, want) {
				t.Fatalf("shown\ngot  %v\nwant %v", got, want)
			}
			held, _ := fast.Held()
			if len(held) != len(slow.held) {
				t.Fatalf("%d leases held, want %d", len(held), len(slow.held))
			}
		}
	})
}
