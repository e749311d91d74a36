package wg

import "sync"

// workerPool finishes the batches of one direction in the order in which they were begun, and
// lets several batches be worked on at once in between.
//
//	one goroutine            workers, in parallel                 in turn
//	fill a batch ──submit──► work: encrypt or decrypt it ───────► finish: send or write it
//	     ▲                                                              │
//	     └──────────────────────── a free batch ◄───────────────────────┘
//
// A batch is several super-packets, so that a hand-off pays for 40 KiB and more. Without workers,
// and while the one goroutine keeps up, everything happens on that goroutine.
type workerPool[B any] struct {
	workers int
	fresh   func() B
	work    func(B) // in parallel
	finish  func(B) // in order

	jobs chan job[B] // nil: no worker has been needed yet
	free chan B
	busy sync.WaitGroup

	mu    sync.Mutex // guards the fields below
	moved sync.Cond  // done has grown
	begun uint64     // batches submitted
	done  uint64     // batches finished
}

type job[B any] struct {
	batch B
	turn  uint64
}

// maxWorkers is the greatest number of workers that can have something to do: filling and
// finishing, which are never parallel, take about 30 % each of a sender's time with AVX-512, and
// 23 % without (perf, TCP on two cores, November 2026).
const maxWorkers = 3

// workersFor returns the number of workers of a direction where Go schedules on n processors:
// half of the processors are for the other direction, and a goroutine fills batches. Each queue of
// the TUN may have as many workers, since a single flow, which is on a single queue, can need them
// all. A pool starts its workers when it needs them, and no more of them run at once than there
// are processors.
func workersFor(n int) int { return min(max(0, n/2-1), maxWorkers) }

func newWorkerPool[B any](workers int, fresh func() B, work, finish func(B)) *workerPool[B] {
	w := &workerPool[B]{workers: workers, fresh: fresh, work: work, finish: finish}
	w.moved.L = &w.mu
	return w
}

// submit hands a full batch to the workers and returns a batch to fill next. It waits while every
// worker is busy and a batch waits for each.
func (w *workerPool[B]) submit(b B) B {
	if w.workers == 0 {
		w.work(b)
		w.finish(b)
		return b
	}
	if w.jobs == nil {
		w.start()
	}
	w.mu.Lock()
	turn := w.begun
	w.begun++
	w.mu.Unlock()
	w.jobs <- job[B]{b, turn}
	return <-w.free
}

// start starts the workers and makes their batches: one for each worker, and one that waits.
func (w *workerPool[B]) start() {
	w.jobs = make(chan job[B], 1)
	w.free = make(chan B, w.workers+2)
	for range w.workers + 1 {
		w.free <- w.fresh()
	}
	for range w.workers {
		w.busy.Go(w.worker)
	}
}

func (w *workerPool[B]) worker() {
	for j := range w.jobs {
		w.work(j.batch)
		w.waitFor(j.turn)
		w.finish(j.batch)
		w.mu.Lock()
		w.done++
		w.mu.Unlock()
		w.moved.Broadcast()
		w.free <- j.batch
	}
}

// waitFor waits until that many batches are finished.
func (w *workerPool[B]) waitFor(turn uint64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for w.done < turn {
		w.moved.Wait()
	}
}

// wait waits until all submitted batches are finished.
func (w *workerPool[B]) wait() {
	if w.jobs != nil {
		w.waitFor(w.begun) // only this goroutine changes it
	}
}

// close ends the workers after their last batch.
func (w *workerPool[B]) close() {
	if w.jobs != nil {
		close(w.jobs)
		w.busy.Wait()
	}
}
