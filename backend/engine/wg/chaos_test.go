package wg

import (
	"bytes"
	"flag"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/loden-net/loden/backend/engine/wg/noise"
)

// chaos is three nodes, two of ours and one of wireguard-go, through hours of accidents.
type chaos struct {
	t     *testing.T
	rand  *rand.Rand
	wire  *wire
	nodes []*node
	tape  []parcel // old messages, to be sent again; guarded by wire.mu
}

// chaosSeeds is how many different runs there are: each is most of an hour.
var chaosSeeds = flag.Uint64("chaos", 2, "runs of TestHoursOfChaos")

// TestHoursOfChaos throws accidents at three nodes on virtual time and then wants them to
// talk, and nothing to be left of what happened.
func TestHoursOfChaos(t *testing.T) {
	for seed := range *chaosSeeds {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := &chaos{t: t, rand: rand.New(rand.NewPCG(seed, 1)), wire: newWire()}
				for n, make := range []maker{ours, ours, theirs} {
					c.nodes = append(c.nodes, make(t, c.wire, n+1))
				}
				defer func() {
					for _, x := range c.nodes {
						x.stop()
					}
				}()
				c.introduce()
				c.lossy()
				for range 200 {
					c.accident()
					time.Sleep(time.Duration(c.rand.IntN(15_000)) * time.Millisecond)
					c.drain()
				}
				c.recover()
			})
		})
	}
}

// introduce makes everybody everybody's peer.
func (c *chaos) introduce() {
	for _, a := range c.nodes {
		for _, b := range c.nodes {
			if a != b {
				a.meet(b, "")
			}
		}
	}
}

// lossy drops, doubles and records datagrams.
func (c *chaos) lossy() {
	dice := rand.New(rand.NewPCG(c.rand.Uint64(), 2))
	c.wire.decide(func(p parcel) int {
		if p.data[0] != noise.TypeTransport || dice.IntN(10) == 0 {
			if len(c.tape) < 200 {
				c.tape = append(c.tape, parcel{p.from, p.to, bytes.Clone(p.data)})
			}
		}
		switch dice.IntN(50) {
		case 0, 1:
			return 0
		case 2:
			return 2
		}
		return 1
	})
}

// any returns two different nodes.
func (c *chaos) any() (a, b *node) {
	i := c.rand.IntN(len(c.nodes))
	j := (i + 1 + c.rand.IntN(len(c.nodes)-1)) % len(c.nodes)
	return c.nodes[i], c.nodes[j]
}

// accident is something that may happen.
func (c *chaos) accident() {
	a, b := c.any()
	switch c.rand.IntN(12) {
	case 0: // a peer is removed and comes back
		a.mustSet("public_key=%s\nremove=true\n", b.public.Hex())
		a.meet(b, "")
	case 1: // a new key
		fresh := blank(c.t, "", 1)
		old := a.public
		a.private, a.public = fresh.private, fresh.public
		a.mustSet("private_key=%s\n", a.private.Hex())
		for _, x := range c.nodes {
			if x != a {
				x.mustSet("public_key=%s\nremove=true\n", old.Hex())
				x.meet(a, "")
			}
		}
	case 2: // a node moves
		port := 50000 + c.rand.IntN(1000)
		a.outer = netip.AddrPortFrom(a.outer.Addr(), uint16(port))
		a.mustSet("listen_port=%d\n", port)
	case 3: // garbage
		for range 50 {
			junk := make([]byte, c.rand.IntN(300))
			for i := range junk {
				junk[i] = byte(c.rand.Uint32())
			}
			if len(junk) > 4 {
				copy(junk, []byte{byte(1 + c.rand.IntN(4)), 0, 0, 0})
			}
			c.carry(parcel{b.outer, a.outer, junk})
		}
	case 4: // everything heard so far, again
		c.wire.mu.Lock()
		heard := c.tape
		c.tape = nil
		c.wire.mu.Unlock()
		for _, p := range heard {
			c.carry(p)
		}
	case 5: // another preshared key, or none, on both sides
		key := strings.Repeat(fmt.Sprint(c.rand.IntN(10)), 64)
		a.mustSet("public_key=%s\npreshared_key=%s\n", b.public.Hex(), key)
		b.mustSet("public_key=%s\npreshared_key=%s\n", a.public.Hex(), key)
	case 6:
		a.mustSet("public_key=%s\npersistent_keepalive_interval=%d\n", b.public.Hex(), c.rand.IntN(3)*10)
	case 7: // a long silence
		time.Sleep(time.Duration(c.rand.IntN(20)) * time.Minute)
	default: // some traffic
		for range c.rand.IntN(40) {
			a.in(datagram(a, b, c.rand.IntN(2), make([]byte, c.rand.IntN(1300))))
		}
	}
}

// carry puts a datagram on the wire, past loss and recording.
func (c *chaos) carry(p parcel) {
	c.wire.mu.Lock()
	defer c.wire.mu.Unlock()
	select {
	case c.wire.ports[p.to] <- p:
	default:
	}
}

// drain takes what has arrived.
func (c *chaos) drain() {
	synctest.Wait()
	for _, x := range c.nodes {
		for {
			select {
			case <-x.out:
				synctest.Wait()
				continue
			default:
			}
			break
		}
	}
}

// recover heals everything: everybody must reach everybody, and after a while of silence
// nothing may be left.
func (c *chaos) recover() {
	c.wire.decide(nil)
	for _, a := range c.nodes {
		for _, b := range c.nodes {
			if a != b {
				a.mustSet("public_key=%s\nremove=true\n", b.public.Hex())
			}
		}
	}
	time.Sleep(time.Minute)
	c.introduce()
	c.drain()
	for _, a := range c.nodes {
		for _, b := range c.nodes {
			if a != b {
				a.says(b, 0, "is all well?")
				b.says(a, 1, "all is well")
			}
		}
	}
	time.Sleep(20 * time.Minute)
	for _, x := range c.nodes {
		if x.device == nil {
			continue
		}
		if n := x.device.local.Indices(); n != 0 {
			c.t.Errorf("%d indices left", n)
		}
		if n := x.device.local.StagedBytes(); n != 0 {
			c.t.Errorf("%d bytes staged", n)
		}
	}
}
