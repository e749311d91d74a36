package wg

import (
	"bytes"
	"maps"
	"slices"
	"sync"
)

// peerOrder keeps the peers of a device in the order of their public keys from dump to dump. To sort
// 10,000 peers takes milliseconds of a processor, for which packets would wait with every
// `wg show`. The zero value is ready for use.
type peerOrder struct {
	mu     sync.Mutex // guards the fields below. Device.mu may be held before it, and is not taken after it
	sorted []*member  // never changed once it is here; nil: not sorted since the last change
	change uint64     // how often a peer was added or removed
}

// changed forgets the order: a peer was added or removed.
func (o *peerOrder) changed() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.sorted = nil
	o.change++
}

// kept returns the sorted peers, or nil and the number of the present change.
func (o *peerOrder) kept() ([]*member, uint64) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.sorted, o.change
}

// keep stores the order of the peers as they were at a change, unless they have changed again.
func (o *peerOrder) keep(sorted []*member, change uint64) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.change == change {
		o.sorted = sorted
	}
}

// sorted returns the peers in a fixed order. The caller does not change the slice and does not hold
// d.mu, which is not held during the work.
func (d *Device) sorted() []*member {
	peers, _ := d.order.kept()
	if peers != nil {
		return peers
	}
	d.mu.RLock()
	_, change := d.order.kept()
	peers = slices.AppendSeq(make([]*member, 0, len(d.peers)), maps.Values(d.peers))
	d.mu.RUnlock()
	d.noteWork(len(peers))
	sortByKey(peers)
	d.order.keep(peers, change)
	return peers
}

func sortByKey(peers []*member) {
	slices.SortFunc(peers, func(a, b *member) int {
		x, y := a.PublicKey(), b.PublicKey()
		return bytes.Compare(x[:], y[:])
	})
}
