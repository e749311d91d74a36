package peer

import (
	"net/netip"
	"testing"
	"time"

	"github.com/loden-net/loden/backend/engine/wg/noise"
)

// TestCookieSurvivesTheInterfaceGoingDown gives a peer's handshake a cookie, sets the interface
// down and up, and wants the next initiation to carry the cookie: under a flood, another round
// for a cookie costs 5 s.
func TestCookieSurvivesTheInterfaceGoingDown(t *testing.T) {
	var l Local
	if err := l.SetPrivateKey(noise.Key{1}); err != nil {
		t.Fatal(err)
	}
	remote, err := noise.NewIdentity(noise.Key{2})
	if err != nil {
		t.Fatal(err)
	}
	checker, from := noise.NewCookieChecker(remote.Public()), netip.MustParseAddrPort("192.0.2.1:7")
	var p Peer
	p.Init(&l, remote.Public(), silent{})
	// signed returns an initiation with the codes that the peer's next handshake would have.
	signed := func(now Moment) []byte {
		p.mu.Lock()
		defer p.mu.Unlock()
		a, err := p.activate(now)
		if err != nil {
			t.Fatal(err)
		}
		msg := make([]byte, noise.InitiationSize)
		a.stamp.Sign(msg, now)
		return msg
	}
	down := func() { p.Down(); p.Up(time.Minute) }

	first := signed(time.Second)
	if err := p.active.stamp.Accept(checker.Reply(first, from, time.Second), time.Second); err != nil {
		t.Fatal(err)
	}
	down()
	if !checker.MAC2(signed(2*time.Second), from, 2*time.Second) {
		t.Error("the cookie is lost")
	}
	down()
	down() // an idle peer that goes down again keeps it
	if !checker.MAC2(signed(3*time.Second), from, 3*time.Second) {
		t.Error("the cookie is lost by the second time")
	}
	down()
	signed(time.Second + 2*time.Minute)
	if p.active.stamp.HasCookie() {
		t.Error("a cookie that is too old is kept")
	}
}

// silent is an alarm that never rings.
type silent struct{}

func (silent) SetAlarm(time.Duration) {}
