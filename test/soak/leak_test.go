package soak_test

import "time"

// How much a steady engine may grow between the end of the warm-up and the end of the run.
// The garbage collector lets the heap double between two of its cycles, so the resident set
// moves by megabytes; a leak of a 64 KiB buffer per accident would be seen.
const (
	mostRSS       = 8 << 20
	mostHeap      = 1 << 20
	mostGoroutine = 0
)

// sample asks every engine how it is, and prints it.
func (w *world) sample(when string) map[*node]health {
	out := map[*node]health{}
	for _, x := range w.nodes {
		h := x.health()
		out[x] = h
		w.t.Logf("%6s  node %d  %-12s  RSS %5.1f MB  heap %5.2f MB  goroutines %d", when, x.n, x.engine,
			float64(h.rss)/1e6, float64(h.Heap)/1e6, h.Goroutines)
	}
	return out
}

// flat wants engines that were never restarted to be as they were.
func (w *world) flat(before map[*node]health) {
	after := w.sample("end")
	for _, x := range w.nodes {
		if !x.steady {
			continue
		}
		b, a := before[x], after[x]
		for range 20 { // a goroutine that is about to end is no leak
			if a.Goroutines <= b.Goroutines {
				break
			}
			w.settle()
			a.Goroutines = x.health().Goroutines
		}
		if a.rss-b.rss > mostRSS || a.Heap-b.Heap > mostHeap || a.Goroutines-b.Goroutines > mostGoroutine {
			w.t.Errorf("node %d has grown: %+v, then %+v", x.n, b, a)
		}
	}
}

// settle gives unfinished work the time to end.
func (w *world) settle() {
	select {
	case <-time.After(250 * time.Millisecond):
	case <-w.t.Context().Done():
	}
}

// end ends every engine; each looks for goroutines it has left.
func (w *world) end() {
	for _, x := range w.nodes {
		x.terminate()
	}
}
