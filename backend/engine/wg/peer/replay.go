package peer

import "github.com/loden-net/loden/backend/engine/wg/state"

// window remembers which of the newest message counters were received, so that no counter is
// accepted twice and a message that was overtaken on its way is accepted all the same: RFC 6479.
// The zero value has received no counter. Its owner locks.
//
// It is not wireguard-go's replay.Filter because another process must continue it: see
// state.Window.
type window struct {
	newest uint64               // the greatest counter received; 0 as well before the first
	ring   [windowBlocks]uint64 // a bit for each counter; block n is at n modulo the length
}

const (
	blockBits    = 64
	windowBlocks = 1 << 7
	windowSize   = (windowBlocks - 1) * blockBits // counters behind the newest that may still come
)

// take reports whether counter comes for the first time, and remembers it. A counter that is too
// old to know is refused.
func (w *window) take(counter uint64) bool {
	if counter > w.newest {
		w.advance(counter)
	} else if w.newest-counter > windowSize {
		return false
	}
	block, bit := w.block(counter/blockBits), uint64(1)<<(counter%blockBits)
	if *block&bit != 0 {
		return false
	}
	*block |= bit
	return true
}

// advance makes counter the newest.
func (w *window) advance(counter uint64) {
	from, to := w.newest/blockBits, counter/blockBits
	for n := min(to-from, windowBlocks); n > 0; n-- {
		*w.block(to - n + 1) = 0
	}
	w.newest = counter
}

// block returns block n, of the counters from 64 n on.
func (w *window) block(n uint64) *uint64 { return &w.ring[n%windowBlocks] }

// export returns the newest blocks.
func (w *window) export() (out state.Window) {
	out.Newest = w.newest
	for i := range out.Blocks {
		if n := w.newest / blockBits; n >= uint64(i) {
			out.Blocks[i] = *w.block(n - uint64(i))
		}
	}
	return out
}

// resume continues the window of the process before. Counters that are older than its blocks
// count as received.
func (w *window) resume(from state.Window) {
	w.newest = from.Newest
	for i := range w.ring {
		w.ring[i] = ^uint64(0)
	}
	for i, block := range from.Blocks {
		if n := w.newest / blockBits; n >= uint64(i) {
			*w.block(n - uint64(i)) = block
		}
	}
}
