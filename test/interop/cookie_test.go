package interop_test

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"net"
	"runtime"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/blake2s"

	"github.com/loden-net/loden/test/sandbox/sandboxtest"
)

// A flood comes in bursts: enough at once that handshakes queue up, and a pause in which an
// honest handshake has its chance. Programs demand cookies when 128 wait, the kernel when 512 do.
const (
	burst       = 400
	kernelBurst = 2000
	pause       = 100 * time.Millisecond
)

// TestCookiesLetTheHonestIn floods the second machine of every pair with handshakes of a
// stranger, until it demands cookies; meanwhile the first machine gets a cookie, and with that a
// new session.
func TestCookiesLetTheHonestIn(t *testing.T) {
	t.Parallel()
	everyPair(t, func(t *testing.T, p *pair) {
		p.a.ip(t, "addr add %s/24 dev eth0", outside(stranger, false))
		p.a.ip(t, "addr add %s/64 dev eth0 nodad preferred_lft 0", outside(stranger, true))
		p.talk(t)
		p.flood(t, p.b)
		here, there := p.a.endpoint(p.v6).Addr(), p.b.endpoint(p.v6).Addr()
		sandboxtest.Until(t, patience, "cookies", func() error {
			if len(p.tape.all(cookie, there)) == 0 {
				return fmt.Errorf("machine %d bears it all", p.b.n)
			}
			return nil
		})
		word := ""
		sandboxtest.Until(t, 3*patience, "an answer to an initiation with a cookie", func() error {
			if word == "" || p.b.ear.count(word) > 0 { // the handshake succeeded, perhaps without a cookie: once more
				p.meets(t, p.a)
				word = p.word()
			}
			p.a.say(t, "", inside(p.b.n, false), word)
			return p.answered(p.tape.all(initiation, here), p.tape.all(response, there))
		})
		p.hears(t, p.a, false)
	})
}

// answered reports no error if any of the initiations has a second code, and an answer.
func (p *pair) answered(calls, answers []message) error {
	with := map[uint32]bool{}
	for _, m := range calls {
		if [16]byte(m.data[148-16:148]) != [16]byte{} {
			with[m.sender()] = true
		}
	}
	for _, m := range answers {
		if with[m.receiver()] {
			return nil
		}
	}
	return fmt.Errorf("%d of %d initiations had a cookie, none of those is among %d answered", len(with), len(calls), len(answers))
}

// flood sends initiations of a stranger to a machine until the test ends.
func (p *pair) flood(t *testing.T, to *machine) {
	t.Helper()
	public, err := base64.StdEncoding.DecodeString(to.public)
	if err != nil {
		t.Fatal(err)
	}
	key := blake2s.Sum256(append([]byte("mac1----"), public...))
	size := burst
	if to.engine.program == "" {
		size = kernelBurst
	}
	var run sync.WaitGroup
	ctx, stop := context.WithCancel(context.Background())
	for range runtime.NumCPU() {
		c := p.other(to).dial(t, outside(stranger, p.v6).String(), p.endpoint(to))
		run.Go(func() {
			defer c.Close()
			for ctx.Err() == nil {
				throw(t, c, key[:], size/runtime.NumCPU())
				select {
				case <-ctx.Done():
				case <-time.After(pause):
				}
			}
		})
	}
	t.Cleanup(func() {
		stop()
		run.Wait()
		t.Logf("machine %d (%s) asked for %d cookies", to.n, to.engine.name, len(p.tape.all(cookie, to.endpoint(p.v6).Addr())))
	})
}

// throw sends initiations that are random but for the public parts: the type, and the
// first code, for which the public key is enough (the paper, section 5.4.4).
func throw(t *testing.T, c net.Conn, key []byte, n int) {
	code, err := blake2s.New128(key)
	if err != nil {
		t.Error(err)
		return
	}
	m := make([]byte, 148)
	for range n {
		rand.Read(m[:116])
		copy(m, []byte{initiation, 0, 0, 0})
		code.Reset()
		code.Write(m[:116])
		code.Sum(m[:116])
		_, _ = c.Write(m) // refused now and then
	}
}
