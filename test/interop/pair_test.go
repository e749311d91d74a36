package interop_test

import (
	"fmt"
	"testing"

	"github.com/loden-net/loden/test/sandbox"
)

// pair is two machines on a wire, each the other's peer. a begins.
type pair struct {
	a, b *machine
	v6   bool // outside
	tape *tape
	said int
}

// addresses of a machine, whose number is the only argument.
const addresses = `
ip addr add 192.0.2.%[1]d/24 dev eth0
ip addr add 2001:db8::%[1]d/64 dev eth0 nodad
ip link set wg0 mtu 1420 up
ip addr add 10.0.0.%[1]d/24 dev wg0
ip addr add fd00::%[1]d/64 dev wg0 nodad`

// newPair makes the machines, and ends with the test.
func newPair(t *testing.T, first, second engine, v6 bool) *pair {
	t.Helper()
	p := &pair{a: newMachine(t, 1, first), b: newMachine(t, 2, second), v6: v6}
	if err := sandbox.Wire(p.a.host, "eth0", p.b.host, "eth0"); err != nil {
		t.Fatal(err)
	}
	p.tape = newTape(t, p.a.host)
	for _, m := range []*machine{p.a, p.b} {
		m.output(t, "sh", "-ec", fmt.Sprintf(addresses, m.n)) // a single process: processes are slow in QEMU
	}
	p.introduce(t)
	return p
}

// other returns the machine that m is not.
func (p *pair) other(m *machine) *machine {
	if m == p.a {
		return p.b
	}
	return p.a
}

// introduce makes both forget the other and know it anew; words are for wg(8).
func (p *pair) introduce(t *testing.T, words ...string) {
	t.Helper()
	for _, m := range []*machine{p.a, p.b} {
		p.meets(t, m, words...)
	}
}

// meets makes a machine forget the other and know it anew: its next packet needs a handshake.
func (p *pair) meets(t *testing.T, m *machine, words ...string) {
	t.Helper()
	o := p.other(m)
	m.wg(t, o.public, append([]string{"remove", "peer", o.public,
		"endpoint", p.endpoint(o), "allowed-ips", allowed(o.n)}, words...)...)
}

func (p *pair) endpoint(m *machine) string { return m.endpoint(p.v6).String() }

// word returns a word that was not sent before.
func (p *pair) word() string {
	p.said++
	return fmt.Sprintf("word %d.", p.said)
}

// hears has a machine send a word until the other machine has received it.
func (p *pair) hears(t *testing.T, from *machine, v6 bool) {
	t.Helper()
	p.hearsWord(t, from, v6, p.word())
}

func (p *pair) hearsWord(t *testing.T, from *machine, v6 bool, word string) {
	t.Helper()
	to := p.other(from)
	to.ear.until(t, word, func() { from.say(t, "", inside(to.n, v6), word) })
}

// talk has both hear each other in both families.
func (p *pair) talk(t *testing.T) {
	t.Helper()
	for _, from := range []*machine{p.a, p.b} {
		p.hears(t, from, false)
		p.hears(t, from, true)
	}
}

// begun returns how many handshakes a machine has begun.
func (p *pair) begun(m *machine) int { return len(p.tape.all(initiation, m.endpoint(p.v6).Addr())) }
