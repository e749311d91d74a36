package interop_test

import (
	"context"
	"flag"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/loden-net/loden/test/sandbox/sandboxtest"
)

var rekey = flag.Bool("rekey", false, "also wait for sessions to be renewed: more than two minutes")

// renewal is when the initiator of a session renews it, while data flows: the paper, section 6.1.
const renewal = 120 * time.Second

// TestSessionsAreRenewedWithoutLoss keeps data of both families flowing both ways until the
// initiator has begun again, 120 s later, and expects every datagram to arrive once. On
// wireguard-go's side as on the kernel's and ours, the responder does not begin.
func TestSessionsAreRenewedWithoutLoss(t *testing.T) {
	if !*rekey { // `make interop` and the guest have it
		t.Log("not asked for: see -rekey")
		return
	}
	everyPair(t, func(t *testing.T, p *pair) {
		p.talk(t)
		start, latest := time.Now(), p.a.shown(t, "latest-handshakes", p.b.public)
		begun, answered := p.begun(p.a), p.begun(p.b)
		ctx, stop := context.WithCancel(t.Context())
		var streams []*stream
		var run sync.WaitGroup
		for _, from := range []*machine{p.a, p.b} {
			for _, v6 := range []bool{false, true} {
				s := &stream{from: from, to: p.other(from), v6: v6}
				streams = append(streams, s)
				run.Go(func() { s.run(ctx, t) })
			}
		}
		defer run.Wait()
		defer stop()
		sandboxtest.Until(t, renewal+patience, "another handshake", func() error {
			if p.begun(p.a) == begun {
				return fmt.Errorf("none after %v", time.Since(start))
			}
			return nil
		})
		took := time.Since(start)
		sandboxtest.Until(t, patience, "later handshakes in what wg(8) shows", func() error {
			a, b := p.a.shown(t, "latest-handshakes", p.b.public), p.b.shown(t, "latest-handshakes", p.a.public)
			if a <= latest || b <= latest { // seconds since 1970, all of ten digits
				return fmt.Errorf("%s and %s, the first was %s", a, b, latest)
			}
			return nil
		})
		p.talk(t)
		stop()
		run.Wait()
		t.Logf("renewed after %v", took.Round(time.Second))
		if took < renewal-patience/4 || p.begun(p.b) != answered {
			t.Errorf("renewed after %v, %d times by the second", took, p.begun(p.b)-answered)
		}
		for _, s := range streams {
			s.complete(t)
		}
	})
}

// stream sends datagrams in a sequence.
type stream struct {
	from, to *machine
	v6       bool
	sent     int
}

func (s *stream) word(n int) string {
	return fmt.Sprintf("stream of %d in %v, datagram %d.", s.from.n, s.v6, n)
}

// run sends fifty a second until ctx is done.
func (s *stream) run(ctx context.Context, t *testing.T) {
	c := s.from.dial(t, "", endpointOf(inside(s.to.n, s.v6)))
	defer c.Close()
	every := time.NewTicker(20 * time.Millisecond)
	defer every.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-every.C:
		}
		if _, err := c.Write([]byte(s.word(s.sent))); err != nil {
			t.Error(err)
			return
		}
		s.sent++
	}
}

// complete wants every datagram to have been heard, or to be heard soon, and none twice.
func (s *stream) complete(t *testing.T) {
	t.Helper()
	if s.sent < 1000 {
		t.Errorf("%s: only %d were sent", s.word(0), s.sent)
	}
	sandboxtest.Until(t, patience, "all of a stream", func() error {
		var lost []string
		for n := range s.sent {
			if s.to.ear.count(s.word(n)) != 1 {
				lost = append(lost, s.word(n))
			}
		}
		if lost != nil {
			return fmt.Errorf("%d of %d lost or twice: %s", len(lost), s.sent, strings.Join(lost[:min(3, len(lost))], ", "))
		}
		return nil
	})
}
