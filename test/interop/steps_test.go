package interop_test

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/loden-net/loden/test/sandbox/sandboxtest"
)

// begins is the first step: the first packet is the first machine's, so is the handshake,
// and then both hear each other and answer pings.
func begins(t *testing.T, p *pair) {
	p.talk(t)
	if p.begun(p.a) == 0 || p.begun(p.b) != 0 {
		t.Errorf("%d handshakes begun by the first machine, %d by the second", p.begun(p.a), p.begun(p.b))
	}
	for _, m := range []*machine{p.a, p.b} {
		for _, v6 := range []bool{false, true} {
			m.output(t, "ping", "-q", "-c", "3", "-i", "0.02", "-W", "20", inside(p.other(m).n, v6))
		}
	}
}

// sizes sends packets as large as the interface takes: each crosses in a single datagram, with 32
// bytes more, and TCP passes both ways.
func sizes(t *testing.T, p *pair) {
	for _, mtu := range []int{1280, 1420, 9000} {
		wire := max(1500, mtu+32+40+8) // the message's own, IPv6, UDP
		for _, m := range []*machine{p.a, p.b} {
			m.ip(t, "link set eth0 mtu %d", wire)
			m.ip(t, "link set wg0 mtu %d", mtu)
		}
		for _, from := range []*machine{p.a, p.b} {
			for _, v6 := range []bool{false, true} {
				payload := mtu - 20 - 8
				if v6 {
					payload = mtu - 40 - 8
				}
				word := p.word()
				p.hearsWord(t, from, v6, word+strings.Repeat("x", payload-len(word)))
				p.crosses(t, from, mtu+32)
				transfer(t, from, p.other(from), v6, 256<<10)
			}
		}
	}
	for _, m := range []*machine{p.a, p.b} {
		m.ip(t, "link set wg0 mtu 1420")
		m.ip(t, "link set eth0 mtu 1500")
	}
}

// preshared sets a key on both sides, then on the first alone: no packet passes until the
// other has it as well, without any other change.
func preshared(t *testing.T, p *pair) {
	const file = "/run/loden/psk"
	secret := p.a.output(t, "wg", "genpsk")
	for _, m := range []*machine{p.a, p.b} {
		if err := os.WriteFile(m.host.Path("/run/loden")+"/psk", []byte(secret), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	p.introduce(t, "preshared-key", file)
	p.talk(t)
	p.meets(t, p.a, "preshared-key", file)
	p.meets(t, p.b)
	p.silent(t)
	p.b.wg(t, p.a.public, "preshared-key", file)
	p.hears(t, p.a, false)
	p.talk(t)
	p.introduce(t)
	p.talk(t)
}

// silent has the first machine speak until it begins a second handshake, so that the first was
// in vain, and expects no packet to arrive.
func (p *pair) silent(t *testing.T) {
	t.Helper()
	word, from := p.word(), p.begun(p.a)
	sandboxtest.Until(t, patience, "a handshake that fails", func() error {
		p.a.say(t, "", inside(p.b.n, false), word)
		if n := p.b.ear.count(word); n != 0 {
			t.Fatalf("%d datagrams arrived with keys that differ", n)
		}
		if n := p.begun(p.a) - from; n < 2 {
			return fmt.Errorf("%d of two", n)
		}
		return nil
	})
}

// newKey changes the private key of either side while they talk.
func newKey(t *testing.T, p *pair) {
	for _, m := range []*machine{p.a, p.b} {
		old, o := m.public, p.other(m)
		m.newKey(t)
		o.wg(t, old, "remove")
		p.meets(t, o)
		p.talk(t)
		if o.shown(t, "latest-handshakes", m.public) == "0" || o.shown(t, "latest-handshakes", old) != "" {
			t.Errorf("machine %d does not know the new key of %d, or still the old one", o.n, m.n)
		}
	}
}

// removed has each side forget the other: packets of the old session are dropped, and both
// hear each other when they are peers again.
func removed(t *testing.T, p *pair) {
	for _, m := range []*machine{p.a, p.b} {
		o := p.other(m)
		p.hears(t, o, false)
		m.wg(t, o.public, "remove")
		lost := p.word() + strings.Repeat("x", 200) // on the wire it has a size of its own
		o.say(t, "", inside(m.n, false), lost)
		p.onTheWire(t, o, lost)
		p.meets(t, m)
		p.hears(t, m, false) // the other does not know that its session is gone
		p.talk(t)
		if n := m.ear.count(lost); n != 0 {
			t.Errorf("machine %d heard one that was no peer", m.n)
		}
	}
}

// onTheWire waits for the message with a word over IPv4 that a machine has sent.
func (p *pair) onTheWire(t *testing.T, from *machine, word string) message {
	t.Helper()
	padded := (20 + 8 + len(word) + 15) &^ 15
	return p.crosses(t, from, 32+padded)
}

// crosses waits for a transport message of a size that a machine has sent.
func (p *pair) crosses(t *testing.T, from *machine, size int) message {
	t.Helper()
	var m message
	sandboxtest.Until(t, patience, "a message on the wire", func() (err error) {
		var ok bool
		if m, ok = p.tape.transport(from.endpoint(p.v6).Addr(), size); !ok {
			err = fmt.Errorf("none of %d bytes from machine %d", size, from.n)
		}
		return err
	})
	return m
}

// keepalive sets the shortest interval on one side: its peer receives message after
// message, though nobody says a word.
func keepalive(t *testing.T, p *pair) {
	for _, m := range []*machine{p.a, p.b} {
		o := p.other(m)
		p.talk(t)
		before := o.received(t, m.public)
		m.wg(t, o.public, "persistent-keepalive", "1")
		sandboxtest.Until(t, patience, "three keepalives", func() error {
			if n := o.received(t, m.public) - before; n < 3*32 {
				return fmt.Errorf("%d bytes", n)
			}
			return nil
		})
		m.wg(t, o.public, "persistent-keepalive", "off")
	}
}

// downAndUp takes each interface down and up: the sessions are gone, and whoever was down
// begins anew; at least both hear each other again.
func downAndUp(t *testing.T, p *pair) {
	for _, m := range []*machine{p.a, p.b} {
		p.talk(t)
		before := p.begun(m)
		m.ip(t, "link set wg0 down")
		if !m.engine.lacks.down {
			m.closed(t)
		}
		m.ip(t, "link set wg0 up")
		m.ip(t, "addr replace fd00::%d/64 dev wg0 nodad", m.n) // the kernel takes it away
		p.hears(t, m, false)
		p.talk(t)
		if p.begun(m) == before && !m.engine.lacks.down {
			t.Errorf("machine %d went on with the sessions it had", m.n)
		}
	}
}

// closed waits until the engine has noticed that its interface is down.
func (m *machine) closed(t *testing.T) {
	t.Helper()
	sandboxtest.Until(t, patience, "the socket to be closed", func() error {
		if open := m.output(t, "ss", "-Hlun", "sport", "=", fmt.Sprintf(":%d", m.port)); open != "" {
			return errors.New(open)
		}
		return nil
	})
}

// nowhere wants the sender of a packet to be told by ICMP that no peer has its address, and
// that the peer which has it has no endpoint. wireguard-go and its fork drop these packets silently.
func nowhere(t *testing.T, p *pair) {
	const nobody = 200
	for _, m := range []*machine{p.a, p.b} {
		if m.engine.lacks.icmp {
			continue
		}
		somebody := m.someKey(t)
		m.isTold(t, inside(nobody, false))
		m.isTold(t, inside(nobody, true))
		m.wg(t, somebody, "allowed-ips", allowed(nobody))
		m.isTold(t, inside(nobody, false))
		m.isTold(t, inside(nobody, true))
		m.wg(t, somebody, "remove")
	}
}

// isTold pings until ICMP says that the host, or address, cannot be reached.
func (m *machine) isTold(t *testing.T, to string) {
	t.Helper()
	sandboxtest.Until(t, patience, "ICMP about "+to, func() error {
		out, err := m.host.Output("ping", "-c", "1", "-W", "1", to)
		if err == nil || !strings.Contains(out, "nreachable") {
			return fmt.Errorf("ping: %s", out)
		}
		return nil
	})
}
