package probe

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/loden-net/loden/config/opt"
)

// named is the longest time within which a fault must have a name.
const named = 30 * time.Second

func TestHealthyPathsAreUpWithinSecondsAndStayUp(t *testing.T) {
	inBubble(t, []string{"a", "b", "c"}, func(t *testing.T, m *mesh) {
		later(4 * time.Second)
		for from := range 3 {
			for to := range 3 {
				for _, f := range opt.Families() {
					p := m.state(from, to, f)
					if from != to && (p.State != Up || p.Reason != "" || p.MTU != meshMTU || p.Loss != 0) {
						t.Errorf("%d -> %d %v: %+v", from, to, f, p)
					}
				}
			}
		}
		later(time.Hour)
		for _, n := range m.nodes {
			if len(n.changes) != 4 { // to up, for each path
				t.Errorf("%s: changes %v", n.name, n.changes)
			}
		}
		if p := m.state(0, 1, opt.V4); p.RTT50 != 2*m.delay || p.RTT99 != 2*m.delay {
			t.Errorf("round trips of 2 ms: %+v", p)
		}
	})
}

func TestDeadHostIsDownWithinThirtySecondsAndUpWhenItIsBack(t *testing.T) {
	for name, at := range map[string]time.Duration{"at once": 4 * time.Second, "later": 67 * time.Second, "much later": time.Hour + 3*time.Second} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, []string{"a", "b", "c"}, func(t *testing.T, m *mesh) {
				later(at)
				b := m.nodes[1].addrs
				m.with(func() {
					m.drop = func(from, to netip.Addr, _ int) bool {
						f := opt.FamilyOf(from)
						return opt.Some(from) == b.Of(f) || opt.Some(to) == b.Of(f)
					}
				})
				cut := time.Now()
				t.Logf("named after %v", m.until(0, 1, opt.V4, Down, named))
				p := m.state(0, 1, opt.V4)
				if p.Reason == "" || !strings.Contains(p.Remedy, "loden why a b") || p.Since.Sub(cut) > 13*time.Second {
					t.Errorf("%+v, cut at %v", p, cut)
				}
				later(10 * time.Minute)
				if p := m.state(0, 2, opt.V4); p.State != Up {
					t.Errorf("the other peer: %+v", p)
				}
				m.with(func() { m.drop = nil })
				m.until(0, 1, opt.V4, Up, 12*time.Second)
				later(time.Minute)
				if p := m.state(0, 1, opt.V4); p.State != Up || p.Loss != 0 {
					t.Errorf("after the heal: %+v", p)
				}
			})
		})
	}
}

func TestLossInOneDirectionIsNamedAtBothEnds(t *testing.T) {
	inBubble(t, []string{"a", "b"}, func(t *testing.T, m *mesh) {
		later(time.Minute)
		a := m.nodes[0].addrs
		m.with(func() {
			m.drop = func(from, _ netip.Addr, _ int) bool { return opt.Some(from) == a.Of(opt.FamilyOf(from)) }
		})
		t.Logf("a, not heard: %v", m.until(0, 1, opt.V4, OneWay, named))
		t.Logf("b, does not hear: %v", m.until(1, 0, opt.V4, Down, named))
		if p := m.state(0, 1, opt.V4); !strings.Contains(p.Reason, "packets of b arrive here") {
			t.Errorf("%+v", p)
		}
	})
}

func TestPathThatLosesLargePacketsIsNamedWithTheSizeThatPasses(t *testing.T) {
	for _, floor := range []int{1419, 1400, 1280, 600} {
		inBubble(t, []string{"a", "b"}, func(t *testing.T, m *mesh) {
			later(time.Minute + time.Duration(floor)*time.Millisecond)
			m.with(func() { m.drop = func(_, _ netip.Addr, size int) bool { return size > floor } })
			t.Logf("floor %d: named after %v", floor, m.until(0, 1, opt.V6, MTU, named))
			later(time.Minute)
			if p := m.state(0, 1, opt.V6); p.State != MTU || p.MTU > floor || p.MTU < floor-12 || p.Loss != 0 {
				t.Errorf("floor %d: %+v", floor, p)
			}
			m.with(func() { m.drop = nil })
			m.until(0, 1, opt.V6, Up, named)
			if p := m.state(0, 1, opt.V6); p.MTU != meshMTU {
				t.Errorf("after the heal: %+v", p)
			}
		})
	}
}

func TestLossyPathIsDegradedAndHeals(t *testing.T) {
	for seed := range uint64(10) {
		inBubble(t, []string{"a", "b"}, func(t *testing.T, m *mesh) {
			later(time.Minute)
			random := rand.New(rand.NewPCG(seed, 2))
			m.with(func() { m.drop = func(_, _ netip.Addr, _ int) bool { return random.IntN(10) < 2 } })
			t.Logf("20 %% lost each way: named after %v", m.until(0, 1, opt.V4, Degraded, 3*time.Minute))
			m.with(func() { m.drop = nil })
			t.Logf("healed after %v", m.until(0, 1, opt.V4, Up, time.Minute))
		})
	}
}

func TestPeerWhoseDaemonRestartsOrIsStoppedStaysUp(t *testing.T) {
	inBubble(t, []string{"a", "b"}, func(t *testing.T, m *mesh) {
		later(time.Minute)
		m.nodes[1].stop()
		later(5 * time.Minute)
		p := m.state(0, 1, opt.V4)
		if p.State != Up || !strings.Contains(p.Reason, "the daemon of b does not run") {
			t.Errorf("%+v", p)
		}
		m.run(1)
		later(12 * time.Second)
		if p := m.state(0, 1, opt.V4); p.State != Up || p.Reason != "" || len(m.nodes[0].changes) != 2 {
			t.Errorf("%+v, changes %v", p, m.nodes[0].changes)
		}
	})
}

func TestPeerWithoutTheServiceIsJudgedByItsHostAndItsCounters(t *testing.T) {
	inBubble(t, []string{"a"}, func(t *testing.T, m *mesh) {
		m.add("flannel")
		m.nodes[0].service.Update(m.plan(0))
		later(time.Minute)
		if p := m.state(0, 1, opt.V4); p.State != Up || !strings.Contains(p.Reason, "does not answer probes") {
			t.Errorf("its host refuses: %+v", p)
		}
		// A firewall swallows the questions; WireGuard acknowledges them after 10 seconds.
		acknowledge := true
		key := m.nodes[1].key
		m.with(func() {
			m.drop = func(from, _ netip.Addr, _ int) bool {
				if c := m.nodes[0].traffic[key]; acknowledge {
					c.Sent += 100
					m.nodes[0].traffic[key] = c
					time.AfterFunc(10*time.Second, func() {
						m.with(func() {
							c := m.nodes[0].traffic[key]
							c.Received, c.Handshake = c.Received+32, time.Now()
							m.nodes[0].traffic[key] = c
						})
					})
				}
				return true
			}
		})
		later(10 * time.Minute)
		if p := m.state(0, 1, opt.V4); p.State != Up || !strings.Contains(p.Reason, "judged by its handshake") {
			t.Errorf("its firewall drops: %+v", p)
		}
		m.with(func() { acknowledge = false })
		later(11 * time.Second)
		t.Logf("named after 11 s and %v", m.until(0, 1, opt.V4, Down, named))
	})
}

func TestPeerOfAHeldLeaseIsNoAlarm(t *testing.T) {
	inBubble(t, []string{"a", "b"}, func(t *testing.T, m *mesh) {
		later(time.Minute)
		m.nodes[1].stop()
		m.with(func() { m.drop = func(_, _ netip.Addr, _ int) bool { return true } })
		p := m.plan(0)
		p.Peers[0].Held = true
		m.nodes[0].service.Update(p)
		later(time.Minute)
		if p := m.state(0, 1, opt.V4); p.State != Unknown || !strings.Contains(p.Reason, "held") {
			t.Errorf("%+v", p)
		}
	})
}

func TestFamilyThatAloneIsSilentIsDown(t *testing.T) {
	inBubble(t, []string{"a", "b"}, func(t *testing.T, m *mesh) {
		later(time.Minute)
		m.with(func() { m.drop = func(from, _ netip.Addr, _ int) bool { return from.Is6() } })
		m.until(0, 1, opt.V6, Down, named)
		if p := m.state(0, 1, opt.V6); !strings.Contains(p.Reason, "answers probes over IPv4") {
			t.Errorf("%+v", p)
		}
		if p := m.state(0, 1, opt.V4); p.State != Up {
			t.Errorf("%+v", p)
		}
	})
}

func TestQuestionsInWordsAreAnsweredWhole(t *testing.T) {
	inBubble(t, []string{"a", "b"}, func(t *testing.T, m *mesh) {
		later(time.Second)
		random := rand.New(rand.NewPCG(3, 4))
		long := make([]byte, 200_000)
		for i := range long {
			long[i] = byte(random.Uint32())
		}
		m.nodes[1].answer = func(question string) ([]byte, error) {
			switch question {
			case "long":
				return long, nil
			case "empty":
				return nil, nil
			}
			return nil, errors.New("no such question")
		}
		dropped := 0
		m.with(func() {
			m.drop = func(_, _ netip.Addr, _ int) bool { dropped++; return dropped%7 == 0 }
		})
		got, err := m.nodes[0].service.Fetch(t.Context(), m.nodes[1].key, "long")
		if err != nil || !bytes.Equal(got, long) {
			t.Errorf("%d bytes, %v", len(got), err)
		}
		if got, err := m.nodes[0].service.Fetch(t.Context(), m.nodes[1].key, "empty"); err != nil || len(got) != 0 {
			t.Errorf("empty: %q, %v", got, err)
		}
		if _, err := m.nodes[0].service.Fetch(t.Context(), m.nodes[1].key, "other"); err == nil || !strings.Contains(err.Error(), "no such question") {
			t.Errorf("other: %v", err)
		}
		m.nodes[1].stop()
		if _, err := m.nodes[0].service.Fetch(t.Context(), m.nodes[1].key, "long"); !errors.Is(err, ErrSilent) {
			t.Errorf("stopped: %v", err)
		}
	})
}

func TestServiceThatIsOffSendsAndAnswersNothing(t *testing.T) {
	inBubble(t, []string{"a"}, func(t *testing.T, m *mesh) {
		m.add("off")
		o := m.options(1)
		o.Interval, o.open = 0, func(string, netip.Addr) (conn, error) {
			t.Error("a socket was opened")
			return nil, errors.New("no")
		}
		n := m.nodes[1]
		n.service = New(o)
		n.service.Update(m.plan(1))
		m.nodes[0].service.Update(m.plan(0))
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- n.service.Run(ctx) }()
		n.stop = func() {
			cancel()
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
		later(time.Minute)
		if m.sent[n.addrs.V4.Or(netip.Addr{})] != 0 {
			t.Error("it sent")
		}
	})
}
