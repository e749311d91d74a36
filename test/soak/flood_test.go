package soak_test

import (
	"crypto/rand"
	mathrand "math/rand/v2"
	"net"
	"time"

	"golang.org/x/net/ipv4"
	"golang.zx2c4.com/wireguard/tai64n"

	"github.com/loden-net/loden/backend/engine/wg/noise"
)

// The stranger has several addresses, so that a limit for each is not the only defence.
const (
	strangerFirst = 100
	strangerAddrs = 16
	floodSize     = 20_000 // datagrams
	floodLimit    = 2 * time.Second
)

// garbage floods a node with random datagrams that begin like messages.
func (w *world) garbage() {
	a, _ := w.two()
	junk := make([][]byte, 256)
	for i := range junk {
		junk[i] = someJunk(w.rand)
	}
	w.flood(a, junk)
}

// someJunk is random bytes, mostly with the type and the size of a message.
func someJunk(dice *mathrand.Rand) []byte {
	sizes := []int{dice.IntN(1400), 148, 92, 64, 32 + dice.IntN(80)*16}
	kind := dice.IntN(len(sizes))
	b := make([]byte, sizes[kind])
	rand.Read(b)
	if kind > 0 {
		copy(b, []byte{byte(kind), 0, 0, 0})
	}
	return b
}

// handshakes floods a node with initiations that any stranger who knows its public key can
// make: each costs it two agreements until it demands cookies.
func (w *world) handshakes() {
	a, _ := w.two()
	remote := noise.Remote{Public: a.id.Public()}
	var calls [][]byte
	for range 64 {
		var private noise.Key
		rand.Read(private[:])
		id, err := noise.NewIdentity(private)
		w.must(err)
		shared, err := id.Shared(remote.Public)
		w.must(err)
		_, call, err := id.Initiate(noise.Remote{Public: remote.Public, Shared: shared}, w.rand.Uint32(), tai64n.Now())
		w.must(err)
		noise.NewStamp(remote.Public).Sign(call, 0)
		calls = append(calls, call)
	}
	w.flood(a, calls)
}

// flood sends datagrams to a node from all the stranger's addresses, as fast as it goes.
func (w *world) flood(a *node, payloads [][]byte) {
	const batch = 32
	var conns []*ipv4.PacketConn
	for n := range strangerAddrs {
		var c net.Conn
		err := w.stranger.Do(func() (err error) {
			from := &net.UDPAddr{IP: net.IPv4(192, 0, 2, byte(strangerFirst+n))}
			c, err = net.DialUDP("udp4", from, &net.UDPAddr{IP: net.IPv4(192, 0, 2, byte(a.n)), Port: a.port})
			return err
		})
		w.must(err)
		defer c.Close()
		conns = append(conns, ipv4.NewPacketConn(c.(*net.UDPConn)))
	}
	dice := mathrand.New(mathrand.NewPCG(w.rand.Uint64(), 3)) // how often it is thrown depends on time
	sent := 0
	for end := time.Now().Add(floodLimit); sent < floodSize && time.Now().Before(end); {
		messages := make([]ipv4.Message, batch)
		for i := range messages {
			messages[i].Buffers = [][]byte{payloads[dice.IntN(len(payloads))]}
		}
		n, _ := conns[dice.IntN(len(conns))].WriteBatch(messages, 0) // refused now and then
		sent += max(n, 1)
	}
	if sent < batch {
		w.t.Errorf("the flood of node %d was %d datagrams", a.n, sent)
	}
}
