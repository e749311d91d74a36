package interop_test

import (
	"fmt"
	"net"
	"strings"
	"testing"

	"github.com/loden-net/loden/test/sandbox/sandboxtest"
)

// stranger is the last number of addresses on the wire that no engine uses.
const stranger = 100

// visitor is the last number of addresses inside that move between peers.
const visitor = 99

// visited lets addresses move between two peers of a machine: packets from them are received,
// and packets to them arrive, while they are the other machine's, and only then.
func visited(t *testing.T, p *pair) {
	both := allowed(visitor)
	for _, m := range []*machine{p.a, p.b} {
		o := p.other(m)
		// The kernel holds the IPv6 address for deprecated, so that it does not choose it for other packets.
		o.ip(t, "addr add %s/32 dev wg0", inside(visitor, false))
		o.ip(t, "addr add %s/128 dev wg0 nodad preferred_lft 0", inside(visitor, true))
		third := m.someKey(t)
		p.hears(t, m, false)
		p.visit(t, o, 0)
		m.wg(t, third, "allowed-ips", both)
		p.visit(t, o, 0)
		m.wg(t, o.public, "allowed-ips", allowed(o.n)+","+both)
		if got := m.shown(t, "allowed-ips", third); got != "(none)" {
			t.Errorf("the third still has %s", got)
		}
		p.visit(t, o, 1)
		for _, v6 := range []bool{false, true} {
			word := p.word()
			o.ear.until(t, word, func() { m.say(t, "", inside(visitor, v6), word) })
		}
		m.wg(t, third, "allowed-ips", both)
		p.visit(t, o, 0)
		m.wg(t, third, "remove")
		o.ip(t, "addr del %s/32 dev wg0", inside(visitor, false))
		o.ip(t, "addr del %s/128 dev wg0", inside(visitor, true))
	}
}

// visit sends a word from a visitor's address, then a word from its own, and expects
// the first to be heard so often when the second is.
func (p *pair) visit(t *testing.T, from *machine, want int) {
	t.Helper()
	to := p.other(from)
	for _, v6 := range []bool{false, true} {
		word := p.word()
		from.say(t, inside(visitor, v6), inside(to.n, v6), word)
		p.hears(t, from, v6)
		if n := to.ear.count(word); n != want {
			t.Errorf("from %s machine %d heard %d, want %d", inside(visitor, v6), to.n, n, want)
		}
	}
}

// roaming changes the address and the port of each machine while they have a session: the
// other follows, or is told if it is of a kind that does not, and no handshake is needed.
func roaming(t *testing.T, p *pair) {
	for _, m := range []*machine{p.a, p.b} {
		o := p.other(m)
		p.talk(t)
		handshakes := func() string {
			return fmt.Sprint(len(p.tape.all(initiation, m.endpoint(p.v6).Addr())), p.begun(o),
				m.shown(t, "latest-handshakes", o.public), o.shown(t, "latest-handshakes", m.public))
		}
		home, homePort := m.at, m.port
		old := m.endpoint(p.v6).Addr()
		before := p.begun(m)
		latest := handshakes()
		m.moves(t, 70+m.n, 51900)
		p.hears(t, m, false)
		p.follow(t, m)
		p.talk(t)
		fresh := p.begun(m) + len(p.tape.all(initiation, old)) - before
		if fresh != 0 {
			t.Errorf("machine %d needed %d handshakes to move", m.n, fresh)
		}
		m.moves(t, home, homePort)
		p.hears(t, m, true)
		p.follow(t, m)
		p.talk(t)
		if now := handshakes(); now != latest {
			t.Errorf("handshakes of machine %d and the other, and when the last was: %s, after the moves %s", m.n, latest, now)
		}
	}
}

// follow waits until the peer knows the new place of a machine. Tailscale's fork accepts packets
// from anywhere, but goes on to answer to the configured address.
func (p *pair) follow(t *testing.T, m *machine) {
	t.Helper()
	o := p.other(m)
	if o.engine.lacks.roam {
		o.wg(t, m.public, "endpoint", p.endpoint(m))
	}
	sandboxtest.Until(t, patience, "the new endpoint", func() error {
		if got := o.shown(t, "endpoints", m.public); got != p.endpoint(m) {
			return fmt.Errorf("machine %d is at %s, the other shows %s", m.n, p.endpoint(m), got)
		}
		return nil
	})
}

// replay sends recorded messages of a machine once more, from elsewhere: data of a session is received
// once, counts once and does not move the peer, and an old initiation is not answered.
func replay(t *testing.T, p *pair) {
	for _, from := range []*machine{p.a, p.b} {
		to := p.other(from)
		p.meets(t, from) // so that this side begins
		p.hears(t, from, false)
		word := p.word() + strings.Repeat("x", 300+from.n*16)
		from.say(t, "", inside(to.n, false), word)
		old := p.onTheWire(t, from, word)
		p.hears(t, from, false) // it is after the word
		calls := p.tape.all(initiation, from.endpoint(p.v6).Addr())
		answers := len(p.tape.all(response, to.endpoint(p.v6).Addr()))
		received := to.received(t, from.public)
		p.again(t, from, old.data, calls[len(calls)-1].data)
		last := p.word()
		from.say(t, "", inside(to.n, false), last)
		sandboxtest.Until(t, patience, "the word after", func() error {
			if to.ear.count(last) == 0 {
				return fmt.Errorf("not heard")
			}
			return nil
		})
		if n := to.ear.count(word); n != 1 {
			t.Errorf("machine %d heard a word %d times", to.n, n)
		}
		if n := to.received(t, from.public) - received; n >= len(old.data) {
			t.Errorf("%d bytes more were counted than those of one short word", n)
		}
		if got := to.shown(t, "endpoints", from.public); got != p.endpoint(from) {
			t.Errorf("the endpoint of machine %d is %s since the replay", from.n, got)
		}
		if n := len(p.tape.all(response, to.endpoint(p.v6).Addr())); n != answers {
			t.Errorf("%d answers to an old initiation", n-answers)
		}
	}
}

// again sends messages of a machine to the other from another port, fifty times.
func (p *pair) again(t *testing.T, from *machine, messages ...[]byte) {
	t.Helper()
	c := from.dial(t, "", p.endpoint(p.other(from)))
	defer c.Close()
	if c.LocalAddr().(*net.UDPAddr).Port == from.port {
		t.Fatal("the same port")
	}
	for range 50 {
		for _, m := range messages {
			if _, err := c.Write(m); err != nil {
				t.Fatal(err)
			}
		}
	}
}
