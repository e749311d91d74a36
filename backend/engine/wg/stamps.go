package wg

import (
	"golang.zx2c4.com/wireguard/tai64n"

	"github.com/loden-net/loden/backend/engine/wg/noise"
	"github.com/loden-net/loden/backend/engine/wg/stamps"
)

// KeepStamps makes the device refuse initiations that a device before accepted, and record its own
// in f. Call it before Start. The caller closes f after the device has ended.
func (d *Device) KeepStamps(f *stamps.File) {
	f.Follow(d.newest, d.eachNewest)
	d.mu.Lock()
	defer d.mu.Unlock()
	d.stamps = f
	for key, m := range d.peers { // of a resumed device: the state that was handed over is newer than the file
		if f.Take(key) != m.Newest() {
			f.Changed(key)
		}
	}
}

// newest returns the newest timestamp of a peer's initiations, or zero for a peer that is not configured.
func (d *Device) newest(key noise.Key) tai64n.Timestamp {
	if p := d.find(key); p != nil {
		return p.Newest()
	}
	return tai64n.Timestamp{}
}

// eachNewest yields the newest timestamp of every peer.
func (d *Device) eachNewest(yield func(noise.Key, tai64n.Timestamp) bool) {
	d.mu.RLock()
	defer d.mu.RUnlock()
	for key, m := range d.peers {
		if !yield(key, m.Newest()) {
			return
		}
	}
}
