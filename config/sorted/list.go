// Package sorted owns immutable sorted lists. A list that differs from another list in a few
// items shares the rest of its memory with that list, so that making it, and finding the
// difference of the two, costs what differs and not what both hold. The package knows nothing of
// the meaning of the items.
//
//	list ──► chunk ──► item, item, item ...        With copies the chunk of the new item
//	    └──► chunk ──► item, item, item ...        and the list of chunks, and no other chunk
package sorted

import (
	"fmt"
	"iter"
	"slices"
)

// Item is a value with an order. Two items for which Compare returns 0 have the same place in
// a list, so a list holds only one of them; they need not be equal with ==.
type Item[T any] interface {
	comparable
	Compare(T) int
}

// List is an immutable sorted list, safe for concurrent use. The zero List is empty.
type List[T Item[T]] struct {
	chunks [][]*T // no chunk is empty; neither chunks nor items are ever changed
	n      int
}

// chunkSize is the most items of a chunk. An insertion into a list of n items copies
// chunkSize pointers and n/chunkSize chunk headers of 24 bytes: 7 KiB for 10,000 items.
const chunkSize = 64

// Of returns the list of the items. Of several items with the same place it holds the last.
func Of[T Item[T]](items ...T) List[T] {
	copies := make([]T, len(items))
	copy(copies, items)
	slices.SortStableFunc(copies, T.Compare)
	var l List[T]
	for i := range copies {
		if i+1 < len(copies) && copies[i].Compare(copies[i+1]) == 0 {
			continue
		}
		item := copies[i] // an allocation of its own, so that it goes when no list holds it
		l.push(&item)
	}
	return l
}

// push appends an item to a list under construction, which no other list shares memory with.
func (l *List[T]) push(item *T) {
	last := len(l.chunks) - 1
	if last < 0 || len(l.chunks[last]) == chunkSize {
		l.chunks = append(l.chunks, nil)
		last++
	}
	l.chunks[last] = append(l.chunks[last], item)
	l.n++
}

// Len returns the number of items.
func (l List[T]) Len() int { return l.n }

// All yields the items in order.
func (l List[T]) All() iter.Seq[T] {
	return func(yield func(T) bool) {
		for _, c := range l.chunks {
			for _, item := range c {
				if !yield(*item) {
					return
				}
			}
		}
	}
}

// From yields the items from the place of x on, in order.
func (l List[T]) From(x T) iter.Seq[T] {
	return func(yield func(T) bool) {
		chunk, at, _ := l.search(x)
		for ; chunk < len(l.chunks); chunk, at = chunk+1, 0 {
			for _, item := range l.chunks[chunk][at:] {
				if !yield(*item) {
					return
				}
			}
		}
	}
}

// Slice returns a copy of the items, in order.
func (l List[T]) Slice() []T { return slices.AppendSeq(make([]T, 0, l.n), l.All()) }

// String prints the items.
func (l List[T]) String() string { return fmt.Sprint(l.Slice()) }

// Find returns the item with the place of x.
func (l List[T]) Find(x T) (T, bool) {
	chunk, at, found := l.search(x)
	if !found {
		var none T
		return none, false
	}
	return *l.chunks[chunk][at], true
}

// search returns where the item with the place of x stands or would stand. In an empty list
// that is chunk 0, which does not exist.
func (l List[T]) search(x T) (chunk, at int, found bool) {
	chunk, _ = slices.BinarySearchFunc(l.chunks, x, func(c []*T, x T) int { return (*c[len(c)-1]).Compare(x) })
	if chunk == len(l.chunks) {
		if chunk == 0 {
			return 0, 0, false
		}
		chunk--
	}
	at, found = slices.BinarySearchFunc(l.chunks[chunk], x, func(item *T, x T) int { return (*item).Compare(x) })
	return chunk, at, found
}

// With returns the list with x, in the place of the item that had its place.
func (l List[T]) With(x T) List[T] {
	if l.n == 0 {
		return Of(x)
	}
	chunk, at, found := l.search(x)
	old := l.chunks[chunk]
	switch {
	case found && *old[at] == x:
		return l
	case found:
		changed := slices.Clone(old)
		changed[at] = &x
		return l.replace(chunk, l.n, changed)
	case len(old) < chunkSize:
		return l.replace(chunk, l.n+1, insert(old, at, &x))
	case chunk == len(l.chunks)-1 && at == len(old): // a list that grows at its end keeps full chunks
		return l.replace(chunk, l.n+1, old, []*T{&x})
	}
	whole := insert(old, at, &x)
	half := len(whole) / 2
	return l.replace(chunk, l.n+1, slices.Clone(whole[:half]), slices.Clone(whole[half:]))
}

// insert returns a copy of a chunk with an item more.
func insert[T any](chunk []*T, at int, item *T) []*T {
	out := make([]*T, 0, len(chunk)+1)
	return append(append(append(out, chunk[:at]...), item), chunk[at:]...)
}

// Without returns the list without the item that has the place of x.
func (l List[T]) Without(x T) List[T] {
	chunk, at, found := l.search(x)
	if !found {
		return l
	}
	old := l.chunks[chunk]
	if len(old) == 1 {
		return l.replace(chunk, l.n-1)
	}
	left := append(slices.Clone(old[:at]), old[at+1:]...)
	if chunk > 0 && len(left)+len(l.chunks[chunk-1]) <= chunkSize/2 { // small chunks would add up
		return List[T]{chunks: splice(l.chunks, chunk-1, 2, slices.Concat(l.chunks[chunk-1], left)), n: l.n - 1}
	}
	return l.replace(chunk, l.n-1, left)
}

// replace returns a list of n items with other chunks in the place of a chunk.
func (l List[T]) replace(chunk, n int, with ...[]*T) List[T] {
	return List[T]{chunks: splice(l.chunks, chunk, 1, with...), n: n}
}

// splice returns a copy of chunks in which with stands in the place of count chunks.
func splice[T any](chunks [][]*T, from, count int, with ...[]*T) [][]*T {
	out := make([][]*T, 0, len(chunks)-count+len(with))
	return append(append(append(out, chunks[:from]...), with...), chunks[from+count:]...)
}
