package probe

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/loden-net/loden/config/opt"
)

// A pod of a peer's node can send any datagram from its own address, and at most with the
// address of its node.
func TestForgedDatagramsChangeNoJudgementAndGetNoAnswer(t *testing.T) {
	inBubble(t, []string{"a", "b"}, func(t *testing.T, m *mesh) {
		later(time.Minute)
		a, b := m.nodes[0].addrs.V4.Or(netip.Addr{}), m.nodes[1].addrs.V4.Or(netip.Addr{})
		var captured []byte
		m.with(func() {
			m.drop = func(from, _ netip.Addr, _ int) bool { return false }
		})
		before := m.nodes[0].service.Counts()
		datagram, _ := must(m.nodes[1].service.peers[m.nodes[0].key].keys())(t).seal(message{kind: ask}.encode(0))
		captured = append(captured, datagram...)
		forged := [][]byte{nil, []byte("LdN\x01"), make([]byte, 1400), append([]byte(magic), make([]byte, 100)...)}
		for i := range captured {
			broken := append([]byte{}, captured...)
			broken[i] ^= 1
			forged = append(forged, broken)
		}
		other := netip.MustParseAddr("10.244.2.7")
		for _, data := range forged {
			m.arrive(b, a, data)
			m.arrive(other, a, data)
		}
		m.arrive(other, a, captured) // a seal of the node from the address of a pod
		later(20 * time.Millisecond)
		after := m.nodes[0].service.Counts()
		if after.Replied != before.Replied || after.Received != before.Received || int(after.Forged-before.Forged) != len(forged) {
			t.Errorf("before %+v, after %+v, %d forged", before, after, len(forged))
		}
		// An ICMP error that quotes other bytes than a question proves nothing.
		m.nodes[1].stop()
		m.with(func() {
			m.drop = func(_, _ netip.Addr, _ int) bool { return true }
		})
		for range 120 {
			m.with(func() {
				m.ends[a].arrivals <- arrival{from: b, data: append([]byte(magic), make([]byte, nonceSize)...), refused: true}
			})
			later(250 * time.Millisecond)
		}
		if p := m.state(0, 1, opt.V4); p.State != Down {
			t.Errorf("%+v", p)
		}
	})
}

// must returns a value, or fails the test.
func must[T any](v T, err error) func(testing.TB) T {
	return func(t testing.TB) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func TestRepliesAreNeverLongerThanQuestionsAndTheirRateIsBounded(t *testing.T) {
	inBubble(t, []string{"a", "b"}, func(t *testing.T, m *mesh) {
		later(time.Minute)
		m.nodes[0].answer = func(string) ([]byte, error) { return []byte(strings.Repeat("a long answer ", 10_000)), nil }
		a, b := m.nodes[0].addrs.V4.Or(netip.Addr{}), m.nodes[1].addrs.V4.Or(netip.Addr{})
		keys := must(m.nodes[1].service.peers[m.nodes[0].key].keys())(t)
		sent, largest, question := 0, 0, 0
		m.with(func() {
			m.drop = func(from, _ netip.Addr, size int) bool {
				if from == a {
					sent, largest = sent+1, max(largest, size)
				}
				return true
			}
		})
		for _, size := range []int{0, 100, 1300} {
			for range 1000 {
				datagram, _ := keys.seal(message{kind: ask}.encode(size))
				question = max(question, len(datagram)+headers(opt.V4))
				m.arrive(b, a, datagram)
			}
			later(time.Millisecond)
		}
		if limit := int(replyBurst) + 2; sent == 0 || sent > limit || largest > question {
			t.Errorf("%d replies to 3000 questions, the largest of %d bytes: want %d at most, of %d", sent, largest, limit, question)
		}
		sent, largest = 0, 0
		for i := range 3000 {
			body := request{answer: uint64(i), number: uint32(i), size: 40, question: "report"}.encode()
			datagram, _ := keys.seal(message{kind: fetch, body: body}.encode(headSize + portionSize + 40))
			question = len(datagram) + headers(opt.V4)
			m.arrive(b, a, datagram)
		}
		later(time.Millisecond)
		if sent > int(pieceBurst)+2 || largest > question {
			t.Errorf("%d pieces of %d bytes for 3000 requests of %d", sent, largest, question)
		}
	})
}

func TestManyPeersTakeTurnsWithinTheBudget(t *testing.T) {
	inBubble(t, []string{"a"}, func(t *testing.T, m *mesh) {
		names := make([]string, 200)
		for i := range names {
			names[i] = "n"
		}
		m.add(names...)
		m.nodes[0].service.Update(m.plan(0))
		later(time.Minute)
		before := m.nodes[0].service.Counts()
		later(10 * time.Minute)
		asked := m.nodes[0].service.Counts().Asked - before.Asked
		t.Logf("%d questions in 10 minutes", asked)
		if asked > 10*60*sampleRate+sampleBurst || asked < 300 {
			t.Errorf("%d questions in 10 minutes", asked)
		}
		for i := range names {
			if p := m.state(0, i+1, opt.V4); p.State == Unknown {
				t.Errorf("peer %d was not judged: %+v", i, p)
			}
		}
	})
}

// A peer that is dead costs handshakes for 90 seconds after each question.
func TestManyDeadPeersAreAskedRarely(t *testing.T) {
	inBubble(t, []string{"a"}, func(t *testing.T, m *mesh) {
		names := make([]string, 200)
		for i := range names {
			names[i] = "dead"
		}
		m.add(names...)
		m.with(func() { m.drop = func(_, _ netip.Addr, _ int) bool { return true } })
		m.nodes[0].service.Update(m.plan(0))
		later(10 * time.Minute)
		before := m.nodes[0].service.Counts()
		later(10 * time.Minute)
		joined := 0
		for _, n := range m.nodes[0].service.peers {
			if time.Since(n.joined) < 10*time.Minute {
				joined++
			}
		}
		t.Logf("%d peers asked in 10 minutes, %d questions", joined, m.nodes[0].service.Counts().Asked-before.Asked)
		if joined > 15 || joined < 5 {
			t.Errorf("%d dead peers were asked in 10 minutes", joined)
		}
	})
}
