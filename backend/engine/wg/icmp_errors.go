package wg

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/loden-net/loden/backend/engine/wg/icmp"
	"github.com/loden-net/loden/backend/engine/wg/offload"
)

// The rate of ICMP errors to a sender: RFC 4443, section 2.4 (f), has these numbers for a small
// router. Senders are counted by a hash of their address, so that a sender that ignores the errors
// hardly ever keeps another sender from getting them, and all senders together get 640 a second at
// most.
const (
	refusalEvery = 100 * time.Millisecond
	refusalBurst = 10
	refusalSlots = 64
)

// refusals tells senders, by ICMP, that their packets are not carried.
type refusals struct {
	limits [refusalSlots]limit

	mu     sync.Mutex // guards the fields below
	buf    [offload.HeaderSize + icmp.MaxSize]byte
	pieces [1][]byte
}

// limit is a token bucket that is full at first: the moment at which it will be full again.
type limit struct{ full atomic.Int64 }

// take takes a token, or reports false when the bucket is empty.
func (l *limit) take(now moment) bool {
	for {
		full := l.full.Load()
		next := max(moment(full), now) + refusalEvery
		if next > now+refusalBurst*refusalEvery {
			return false
		}
		if l.full.CompareAndSwap(full, int64(next)) {
			return true
		}
	}
}

// refuses drops a packet that goes to no peer, or to a peer whose endpoint is unknown, and tells
// its sender, as wg_xmit of the kernel does. The packet has its virtio header before it and is
// overwritten when it is dropped.
func (d *Device) refuses(p *member, b []byte, split *offload.Split) bool {
	if p != nil && p.Endpoint() != nil {
		return false
	}
	d.counters.unroutable.Add(1)
	if !d.mayTell(b[offload.HeaderSize:]) {
		return true
	}
	if split.Reset(offload.Decode(b), b[offload.HeaderSize:]) == nil {
		d.tell(split, icmp.Unreachable)
	}
	return true
}

// exceeds drops a packet that is too large for the interface and must not be fragmented, and tells
// its sender. The kernel hands over such packets before it knows of a smaller MTU, or where a
// route has a larger MTU.
func (d *Device) exceeds(split *offload.Split, pkt []byte) bool {
	size := int64(split.Size())
	if size <= d.linkMTU.Load() || icmp.MayFragment(pkt) {
		return false
	}
	_, _ = d.measure() // a larger MTU may not be known here yet; such packets are rare
	mtu := d.linkMTU.Load()
	if size <= mtu || mtu == 0 {
		return false
	}
	d.counters.tooBig.Add(1)
	if d.mayTell(pkt) {
		d.tell(split, func(b, pkt []byte) []byte { return icmp.TooBig(b, pkt, uint16(mtu)) })
	}
	return true
}

// mayTell reports whether the sender of a packet may be told of an error once more.
func (d *Device) mayTell(pkt []byte) bool {
	slot := uint8(0)
	switch {
	case len(pkt) >= 20 && pkt[0]>>4 == 4:
		slot = pkt[12] ^ pkt[13] ^ pkt[14] ^ pkt[15]
	case len(pkt) >= 40 && pkt[0]>>4 == 6:
		for _, x := range pkt[8:24] {
			slot ^= x
		}
	default:
		return false // not an IP packet: there is no sender to tell
	}
	return d.refusals.limits[slot%refusalSlots].take(d.now())
}

// tell answers the first packet that split would cut with the ICMP error that message makes of it.
func (d *Device) tell(split *offload.Split, message func(b, pkt []byte) []byte) {
	first, ok := split.Next()
	if !ok {
		return
	}
	r := &d.refusals
	r.mu.Lock()
	defer r.mu.Unlock()
	b := message(r.buf[:offload.HeaderSize], first) // the virtio header stays zero
	if b == nil {
		return
	}
	r.pieces[0] = b
	// After an error the interface is down, and the sender does not get the ICMP error.
	_ = d.tunnel.Write(r.pieces[:])
}
