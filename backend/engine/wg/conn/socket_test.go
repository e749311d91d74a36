package conn

import (
	"bytes"
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"
)

// loopback opens a pair of sockets on a free port and returns the socket of a family and its
// address.
func loopback(t *testing.T, v6 bool) (*Socket, netip.AddrPort) {
	t.Helper()
	p, err := Open(0, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	if v6 {
		return p.V6, netip.AddrPortFrom(netip.IPv6Loopback(), p.Port)
	}
	return p.V4, netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), p.Port)
}

// arrive receives until all bytes of want are there, and checks them and where they came
// from.
func arrive(t *testing.T, s *Socket, from netip.AddrPort, want []byte) {
	t.Helper()
	in := make([]Incoming, ReadBatchSize)
	for i := range in {
		in[i].Buf = make([]byte, 1<<16)
	}
	var got []byte
	for len(got) < len(want) {
		n, err := s.Receive(in)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range in[:n] {
			got = append(got, m.Buf[:m.Size]...)
			if m.From != from || m.Local != from.Addr() || m.ECN != 2 {
				t.Fatalf("from %s to %s with mark %d", m.From, m.Local, m.ECN)
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
			train := Outgoing{To: to, Local: from.Addr(), Pieces: [][]byte{payload[:2000], payload[2000:]},
				Segment: 1000, Size: 3000, Count: 3, Class: 2}
			send := func() {
				t.Helper()
				if err := a.Send([]Outgoing{train, train}); err != nil {
					t.Fatal(err)
				}
				arrive(t, b, from, bytes.Repeat(payload, 2))
			}
			send()
			if err := a.rescue(newSendBuffers(a.v6), &train, unix.EMSGSIZE); err != nil {
				t.Fatal(err)
			}
			arrive(t, b, from, payload)
			if a.noGSO.Load() {
				t.Error("one path that is too narrow ends trains for all")
			}
			if err := a.rescue(newSendBuffers(a.v6), &train, unix.EIO); err != nil {
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
	payload := bytes.Repeat([]byte("0123456789"), 300)
	train := Outgoing{To: to, Local: from.Addr(), Pieces: [][]byte{payload}, Segment: 1000, Size: 3000, Count: 3, Class: 2}
	if err := a.rescue(newSendBuffers(a.v6), &train, unix.EINVAL); err != nil {
		t.Fatal(err)
	}
	arrive(t, b, from, payload)
	if train.SourceRefused {
		t.Error("the local address of a train that is too large was refused")
	}
	train.Local = netip.MustParseAddr("2001:db8::77") // not an address of this host
	if err := a.rescue(newSendBuffers(a.v6), &train, unix.EINVAL); err != nil {
		t.Fatal(err)
	}
	arrive(t, b, from, payload)
	if !train.SourceRefused {
		t.Error("a local address that is not an address of this host was not reported")
	}
}
