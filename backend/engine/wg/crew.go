package wg

import "sync"

// crew finishes the batches of one direction in the order in which they were begun, and
// lets several be worked on at once in between.
//
//	one goroutine          hands, as many as there are            in turn
//	fill a batch ──pass──► work: encrypt or decrypt it ─────────► finish: send or write it
//	     ▲                                                              │
//	     └──────────────────────── a free batch ◄───────────────────────┘
//
// A batch is some super-packets, so that one hand-off pays for 40 KiB and more. With no
// hands, and while the one goroutine keeps up, everything happens on it.
type crew[B any] struct {
	hands  int
	fresh  func() B
	work   func(B) // several at once
	finish func(B) // one after the other

	jobs chan job[B] // nil: no hand has been needed yet
	free chan B
	busy sync.WaitGroup

	mu    sync.Mutex // guards what follows
	moved sync.Cond  // done has grown
	begun uint64     // batches passed
	done  uint64     // and finished
}

type job[B any] struct {
	batch B
	turn  uint64
}

// maxHands is how many hands can have something to do: filling and finishing, which happen
// once at a time, take about 30 % each of a sender's time with AVX-512, and 23 % without
// (perf, TCP on two cores, November 2026).
const maxHands = 3

// handsFor returns how many hands a direction has where Go schedules on n processors: half
// of them are for the other direction, and one fills batches. Each queue of the TUN may have
// as many, since one flow, which is on one queue, can need them all. Hands that are not
// needed do not exist; of those that are, no more run at once than there are processors.
func handsFor(n int) int { return min(max(0, n/2-1), maxHands) }

func newCrew[B any](hands int, fresh func() B, work, finish func(B)) *crew[B] {
	c := &crew[B]{hands: hands, fresh: fresh, work: work, finish: finish}
	c.moved.L = &c.mu
	return c
}

// pass hands a full batch over and returns one to fill next. It waits while every hand is
// busy and a batch waits for each.
func (c *crew[B]) pass(b B) B {
	if c.hands == 0 {
		c.work(b)
		c.finish(b)
		return b
	}
	if c.jobs == nil {
		c.employ()
	}
	c.mu.Lock()
	turn := c.begun
	c.begun++
	c.mu.Unlock()
	c.jobs <- job[B]{b, turn}
	return <-c.free
}

// employ starts the hands and makes their batches: one for each, and one to wait.
func (c *crew[B]) employ() {
	c.jobs = make(chan job[B], 1)
	c.free = make(chan B, c.hands+2)
	for range c.hands + 1 {
		c.free <- c.fresh()
	}
	for range c.hands {
		c.busy.Go(c.hand)
	}
}

func (c *crew[B]) hand() {
	for j := range c.jobs {
		c.work(j.batch)
		c.reach(j.turn)
		c.finish(j.batch)
		c.mu.Lock()
		c.done++
		c.mu.Unlock()
		c.moved.Broadcast()
		c.free <- j.batch
	}
}

// reach waits until so many batches are finished.
func (c *crew[B]) reach(turn uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for c.done < turn {
		c.moved.Wait()
	}
}

// settle waits until nothing is at work any more.
func (c *crew[B]) settle() {
	if c.jobs != nil {
		c.reach(c.begun) // which only this goroutine changes
	}
}

// close ends the hands once they are done.
func (c *crew[B]) close() {
	if c.jobs != nil {
		close(c.jobs)
		c.busy.Wait()
	}
}
