package sorted

import (
	"iter"

	"github.com/loden-net/loden/config/opt"
)

// Change is the difference of two lists at a place: an item came, went, or another item has its
// place. At least one of the two is present, and they differ.
type Change[T any] struct{ Before, After opt.Option[T] }

// Diff yields the changes that lead from one list to the other, in order. Chunks that both
// lists share are passed over, so lists that were made from each other by n changes cost about n.
func Diff[T Item[T]](from, to List[T]) iter.Seq[Change[T]] {
	return func(yield func(Change[T]) bool) {
		a, b := cursor[T]{list: from}, cursor[T]{list: to}
		for {
			a.skipShared(&b)
			x, y := a.item(), b.item()
			order := 0
			switch {
			case x == nil && y == nil:
				return
			case x == nil:
				order = 1
			case y == nil:
				order = -1
			case x != y:
				order = (*x).Compare(*y)
			}
			var c Change[T]
			if order <= 0 {
				c.Before = opt.Some(*x)
				a.at++
			}
			if order >= 0 {
				c.After = opt.Some(*y)
				b.at++
			}
			if (order != 0 || x != y && *x != *y) && !yield(c) {
				return
			}
		}
	}
}

// Equal reports whether two lists hold equal items.
func (l List[T]) Equal(other List[T]) bool {
	if l.n != other.n {
		return false
	}
	for range Diff(l, other) {
		return false
	}
	return true
}

// Onto returns a list that is equal to l and shares with base what both hold: a list that was
// read anew then has the memory of the list before it, and their difference is cheap to find.
func (l List[T]) Onto(base List[T]) List[T] {
	out := base
	for c := range Diff(base, l) {
		if x, ok := c.After.Get(); ok {
			out = out.With(x)
		} else if x, ok := c.Before.Get(); ok {
			out = out.Without(x)
		}
	}
	return out
}

// cursor is a place in a list. At the end chunk is the number of chunks.
type cursor[T Item[T]] struct {
	list  List[T]
	chunk int
	at    int
}

// item returns the item at the cursor, or nil at the end.
func (c *cursor[T]) item() *T {
	for c.chunk < len(c.list.chunks) {
		if chunk := c.list.chunks[c.chunk]; c.at < len(chunk) {
			return chunk[c.at]
		}
		c.chunk, c.at = c.chunk+1, 0
	}
	return nil
}

// skipShared moves both cursors past the chunks that follow in both lists.
func (c *cursor[T]) skipShared(other *cursor[T]) {
	for c.item() != nil && other.item() != nil && c.at == 0 && other.at == 0 &&
		sameChunk(c.list.chunks[c.chunk], other.list.chunks[other.chunk]) {
		c.chunk++
		other.chunk++
	}
}

// sameChunk reports whether two chunks are the same memory.
func sameChunk[T any](a, b []*T) bool { return len(a) == len(b) && &a[0] == &b[0] }
