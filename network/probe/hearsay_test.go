package probe

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/loden-net/loden/config/opt"
)

// The peer hears this node, and its packets do not arrive: only a third node can tell that.
func TestSilentPeerThatHearsThisNodeIsCalledOneWayAfterTheWordOfAWitness(t *testing.T) {
	inBubble(t, []string{"a", "b", "c"}, func(t *testing.T, m *mesh) {
		later(time.Minute)
		s, a, b := m.nodes[0].service, m.nodes[0], m.nodes[1]
		m.with(func() {
			m.drop = func(from, to netip.Addr, _ int) bool {
				f := opt.FamilyOf(from)
				return opt.Some(from) == b.addrs.Of(f) && opt.Some(to) == a.addrs.Of(f)
			}
		})
		m.until(0, 1, opt.V4, Down, named)
		later(2 * time.Second)
		silent, witnesses := s.Silent()
		if len(silent) != 1 || silent[0] != b.key || len(witnesses) != 1 || witnesses[0] != m.nodes[2].key {
			t.Fatalf("silent %v, witnesses %v", silent, witnesses)
		}
		view, _ := b.service.Path(a.key, opt.V4)
		s.Told(b.key, opt.V4, opt.Some(time.Since(view.Heard)))
		s.Told(b.key, opt.V6, opt.None[time.Duration]())
		if p := m.state(0, 1, opt.V4); p.State != OneWay || !strings.Contains(p.Reason, "packets of this node reach b") {
			t.Errorf("%+v", p)
		}
		if p := m.state(0, 1, opt.V6); p.State != Down {
			t.Errorf("the witness says that b never heard a: %+v", p)
		}
		later(2 * opinionLife)
		if p := m.state(0, 1, opt.V4); p.State != Down {
			t.Errorf("the word is old: %+v", p)
		}
	})
}
