package wg

import (
	"net/netip"

	"github.com/loden-net/loden/backend/engine/wg/noise"
	"github.com/loden-net/loden/backend/engine/wg/peer"
)

// handshakeItem is an item of the handshake queue: a handshake message, or a peer whose staged
// packets can be sent now.
type handshakeItem struct {
	raw  [noise.InitiationSize]byte
	size uint8 // 0: no message
	from peer.Endpoint
	peer *peer.Peer
}

// enqueue hands an item to the handshake worker, or drops it when the queue is full.
func (d *Device) enqueue(i handshakeItem) {
	select {
	case d.handshakes <- i:
	default:
		d.counters.queueFull.Add(1)
	}
}

// handshakeWorker reads handshake messages, so that their cost never stops the data path, and
// sends staged packets once there is a keypair. There are several of them where there are
// processors: see handshakeWorkersFor.
func (d *Device) handshakeWorker() {
	s := newSender(d)
	for {
		select {
		case <-d.closed:
			return
		case i := <-d.handshakes:
			if len(d.handshakes) >= loadedAt {
				d.loaded.Store(int64(d.now()))
			}
			d.handle(i, s)
		}
	}
}

// handle acts on an item.
func (d *Device) handle(i handshakeItem, s *sender) {
	if p := d.read(i); p != nil {
		s.flushStaged(p)
	}
}

// read acts on the message of an item. It returns a peer that has a keypair now for its staged
// packets, or nil.
func (d *Device) read(i handshakeItem) *peer.Peer {
	if i.size == 0 {
		return i.peer
	}
	t := d.time()
	p, actions, verdict := d.local.Receive(peer.Inbound{
		Message: i.raw[:i.size], From: i.from, Loaded: d.underLoad(t.Now), Allow: d.allowHandshake, Find: d.find,
	}, t)
	switch verdict {
	case peer.Rejected:
		d.counters.rejected.Add(1)
	case peer.CookieSent:
		d.counters.cookies.Add(1)
	}
	if verdict == peer.Accepted {
		d.checkSoon() // it may have moved the peer
		if i.raw[0] == noise.TypeInitiation {
			d.stamps.Changed(p.PublicKey())
		}
	}
	flush := actions.Flush
	actions.Flush = false // this goroutine does it
	d.carryOut(p, actions)
	if flush {
		return p
	}
	return nil
}

// allowHandshake reports whether the sender at an address may have another handshake while the device is
// loaded. An IPv6 /64 counts as a single sender, since whoever has one address of it has all, as
// in the kernel (ratelimiter.c).
func (d *Device) allowHandshake(a netip.Addr) bool {
	if a.Is6() && !a.Is4In6() {
		a = netip.PrefixFrom(a.WithZone(""), 64).Masked().Addr()
	}
	return d.limits.Allow(a)
}

// handshakeWorkersFor returns how many goroutines read handshake messages where Go schedules on n
// processors: half of them, so that a flood of handshakes leaves as much to the data path.
func handshakeWorkersFor(n int) int { return min(max(1, n/2), maxHandshakeWorkers) }

// underLoad reports whether the sender of a handshake message must show a cookie: section 5.3.
func (d *Device) underLoad(now moment) bool {
	at := moment(d.loaded.Load())
	return at != 0 && now-at < loadedFor
}
