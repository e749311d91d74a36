package wg

import (
	"testing"
	"time"

	"github.com/loden-net/loden/backend/engine/wg/offload"
)

// machineClock is the clocks of a machine that can sleep and whose wall clock can be set.
type machineClock struct {
	monotonic, wall, slept time.Duration
	asked                  int
}

// clock returns a device's clock on this machine.
func (m *machineClock) clock(now moment) *clock {
	return newClockOf(now, func() time.Duration { return m.monotonic }, func() time.Duration { return m.wall }, func() time.Duration { m.asked++; return m.slept })
}

func (m *machineClock) pass(d time.Duration) { m.monotonic, m.wall = m.monotonic+d, m.wall+d }

// sleep lets the machine sleep, and resume its devices.
func (m *machineClock) sleep(d time.Duration) {
	m.wall, m.slept = m.wall+d, m.slept+d
	m.pass(compareEvery)
}

func TestClockGoesOnWhileTheMachineSleeps(t *testing.T) {
	m := &machineClock{monotonic: 5 * time.Second, wall: 1_700_000_000 * time.Second, slept: time.Hour}
	c := m.clock(time.Hour)
	want := time.Hour
	check := func(what string) {
		t.Helper()
		if got := c.now(); got < want-time.Millisecond || got > want+time.Millisecond {
			t.Errorf("%s: %v, want %v", what, got, want)
		}
	}
	check("at the start")
	m.pass(time.Minute)
	want += time.Minute
	check("awake")
	m.sleep(10 * time.Minute)
	want += 10*time.Minute + compareEvery
	check("after a sleep")
	for _, step := range []time.Duration{-time.Hour, 3 * time.Hour} {
		m.wall += step
		m.pass(compareEvery)
		want += compareEvery
		check("after a step of the wall clock")
	}
	m.sleep(time.Second)
	m.pass(time.Second)
	want += 2*time.Second + compareEvery
	check("after another sleep")
	asked := m.asked
	for range 1000 {
		c.now()
	}
	if m.asked != asked {
		t.Errorf("the kernel was asked %d times in 1,000 readings", m.asked-asked)
	}
}

func TestFirstPacketAfterALongSleepBeginsAHandshake(t *testing.T) {
	d, k, _ := tunnelEnds(t)
	m := &machineClock{}
	d.clock = m.clock(d.now())
	if err := configure(d, "private_key="+key(5)+"\n"); err != nil {
		t.Fatal(err)
	}
	resume(t, d, 1, 2, true)
	s := newSender(d)
	send := func() int {
		k.last = nil
		s.packet(append(make([]byte, offload.HeaderSize), datagram(blank(t, "", 1), blank(t, "", 2), 0, []byte("hello"))...))
		s.flush()
		return len(k.last)
	}
	if send() == 0 {
		t.Fatal("a packet with a fresh keypair was not sent")
	}
	m.sleep(10 * time.Minute)
	if n := send(); n != 0 {
		t.Errorf("%d bytes sent with keys that the peer has forgotten", n)
	}
	if at := onlyPeer(d).Deadline(); at == 0 || at > d.now() {
		t.Errorf("the handshake is due in %v, want at once", at-d.now())
	}
}
