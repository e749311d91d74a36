package interop_test

import (
	"errors"
	"fmt"
	"net"
	"sync"
	"testing"

	"github.com/loden-net/loden/test/sandbox/sandboxtest"
)

// earPort is where every machine listens, at all its addresses.
const earPort = 7000

// ear records the datagrams that reach a machine.
type ear struct {
	mu    sync.Mutex // guards heard
	heard map[string]int
}

// newEar listens until the test ends.
func newEar(t *testing.T, m *machine) *ear {
	t.Helper()
	var c net.PacketConn
	err := m.host.Do(func() (err error) {
		c, err = net.ListenPacket("udp", fmt.Sprintf(":%d", earPort))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	e := &ear{heard: map[string]int{}}
	var listen sync.WaitGroup
	listen.Go(func() {
		b := make([]byte, 64<<10)
		for {
			n, _, err := c.ReadFrom(b)
			if err != nil {
				return
			}
			e.mu.Lock()
			e.heard[string(b[:n])]++
			e.mu.Unlock()
		}
	})
	t.Cleanup(func() {
		_ = c.Close()
		listen.Wait()
	})
	return e
}

// endpointOf returns where the ear at an address is.
func endpointOf(address string) string { return net.JoinHostPort(address, fmt.Sprint(earPort)) }

// count returns how often a word has come.
func (e *ear) count(word string) int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.heard[word]
}

// until calls say over and over until the word has come.
func (e *ear) until(t *testing.T, word string, say func()) {
	t.Helper()
	sandboxtest.Until(t, patience, fmt.Sprintf("%.20q to be heard", word), func() error {
		if say(); e.count(word) == 0 {
			return errors.New("silence")
		}
		return nil
	})
}

// say sends a datagram through the tunnel, from an address of the machine or from any.
// A missing route is no error: the receiver's side waits for the datagram.
func (m *machine) say(t *testing.T, from, to, word string) {
	t.Helper()
	c := m.dial(t, from, endpointOf(to))
	_, _ = c.Write([]byte(word))
	_ = c.Close()
}

// dial opens a UDP socket of the machine to an address.
func (m *machine) dial(t *testing.T, from, to string) net.Conn {
	t.Helper()
	var d net.Dialer
	if from != "" {
		d.LocalAddr = &net.UDPAddr{IP: net.ParseIP(from)}
	}
	var c net.Conn
	err := m.host.Do(func() (err error) {
		c, err = d.Dial("udp", to)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// transfer sends size random bytes over TCP from a to b and wants them whole.
func transfer(t *testing.T, a, b *machine, v6 bool, size int64) {
	t.Helper()
	if err := sandboxtest.Transfer(a.host, b.host, inside(b.n, v6), size, 2*patience); err != nil {
		t.Error(err)
	}
}
