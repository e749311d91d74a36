package wg

import (
	"bytes"
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"
)

// loopback opens a pair of sockets on a free port and returns the one of a family and its
// address.
func loopback(t *testing.T, v6 bool) (*udpSocket, netip.AddrPort) {
	t.Helper()
	b, err := kernelBinder{}.open(0, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for _, s := range b.all() {
			if err := s.close(); err != nil {
				t.Error(err)
			}
		}
	})
	if v6 {
		return b.v6.(*udpSocket), netip.AddrPortFrom(netip.IPv6Loopback(), b.port)
	}
	return b.v4.(*udpSocket), netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), b.port)
}

// arrive receives until all bytes of want are there, and checks them and where they came
// from.
func arrive(t *testing.T, s *udpSocket, from netip.AddrPort, want []byte) {
	t.Helper()
	r := newReceiver(idle())
	var got []byte
	for len(got) < len(want) {
		n, err := s.receive(r.in)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range r.in[:n] {
			got = append(got, m.buf[:m.n]...)
			if m.from != from || m.local != from.Addr() || m.ecn != 2 {
				t.Fatalf("from %s to %s with mark %d", m.from, m.local, m.ecn)
			}
		}
	}
	if !bytes.Equal(got, want) {
		t.Errorf("got %d bytes, want %d: not the same", len(got), len(want))
	}
}

func TestTrainsArriveWholeOrSingly(t *testing.T) {
	for _, family := range []struct {
		name string
		v6   bool
	}{{"IPv4", false}, {"IPv6", true}} {
		t.Run(family.name, func(t *testing.T) {
			a, from := loopback(t, family.v6)
			b, to := loopback(t, family.v6)
			payload := bytes.Repeat([]byte("0123456789"), 300)
			train := outgoing{to: &endpoint{remote: to, local: from.Addr()}, pieces: [][]byte{payload[:2000], payload[2000:]},
				segment: 1000, size: 3000, count: 3, ecn: 2}
			send := func() {
				t.Helper()
				if err := a.send([]outgoing{train, train}); err != nil {
					t.Fatal(err)
				}
				arrive(t, b, from, bytes.Repeat(payload, 2))
			}
			send()
			if err := a.rescue(newOutbox(a.v6), &train, unix.EMSGSIZE); err != nil {
				t.Fatal(err)
			}
			arrive(t, b, from, payload)
			if a.noGSO.Load() {
				t.Error("one path that is too narrow ends trains for all")
			}
			if err := a.rescue(newOutbox(a.v6), &train, unix.EIO); err != nil {
				t.Fatal(err)
			}
			arrive(t, b, from, payload)
			if !a.noGSO.Load() {
				t.Error("the device is asked again and again")
			}
			send()
		})
	}
}

func TestTrainTooLargeForItsPathKeepsItsLocalAddress(t *testing.T) {
	a, from := loopback(t, true)
	b, to := loopback(t, true)
	p := &peer{}
	p.to.Store(&endpoint{remote: to, local: from.Addr()})
	payload := bytes.Repeat([]byte("0123456789"), 300)
	train := outgoing{peer: p, to: p.to.Load(), pieces: [][]byte{payload}, segment: 1000, size: 3000, count: 3, ecn: 2}
	if err := a.rescue(newOutbox(a.v6), &train, unix.EINVAL); err != nil {
		t.Fatal(err)
	}
	arrive(t, b, from, payload)
	if got := p.to.Load().local; got != from.Addr() {
		t.Errorf("sent from %v from now on, want %s", got, from.Addr())
	}
	train.to = &endpoint{remote: to, local: netip.MustParseAddr("2001:db8::77")} // not ours
	p.to.Store(train.to)
	if err := a.rescue(newOutbox(a.v6), &train, unix.EINVAL); err != nil {
		t.Fatal(err)
	}
	arrive(t, b, from, payload)
	if got := p.to.Load().local; got.IsValid() {
		t.Errorf("still sent from %s, which is not ours", got)
	}
}
